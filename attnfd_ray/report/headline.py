"""The result of a search in a few sentences: the gain, over what, and how certain it is.

No torch, no ray.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from attnfd_ray.analysis import numbers
from attnfd_ray.analysis.records import (
    Confirmation,
    ConfirmedLine,
    ExperimentReport,
    Gain,
    ProtocolReport,
    TrialLine,
)
from attnfd_ray.analysis.seeds import shown_values

_VERDICTS = {
    "better": "The interval is above 0: better than chance explains.",
    "worse": "The interval is below 0: the student is better off alone.",
    "tie": "The interval contains 0: this may be chance.",
    None: "One fresh seed is no measure of certainty.",
}


class _Confirmed(NamedTuple):
    """A confirmation with the lines of the best config and of the baseline."""

    confirmation: Confirmation
    best: ConfirmedLine
    baseline: ConfirmedLine


def headline(shown: ExperimentReport) -> str | None:
    """Return sentences on the best config of an experiment; None where there is no gain."""
    protocol = next((protocol for protocol in shown.protocols if protocol.best), None)
    if protocol is None or protocol.gain is None:
        return None
    confirmed = _latest_confirmed(protocol, shown.confirmations)
    if confirmed is None:
        sentences = _unconfirmed(protocol, protocol.gain)
    else:
        sentences = _over_seeds(*confirmed)
    if protocol.teacher is None or protocol.teacher.best_val_miou is None:
        return sentences
    return f"{sentences} The teacher has {numbers.percent(protocol.teacher.best_val_miou)} %."


def config_name(method: str, values: Mapping[str, Any]) -> str:
    """Return a method with its searched values.

    >>> config_name("attnfd", {"method.layers": ["aspp"], "method.loss_weight": 2.0})
    'attnfd layers=[aspp] loss_weight=2'
    """
    shown = {path: value for path, value in values.items() if path != "method"}
    section = values.get("method") or {}
    shown |= {key: value for key, value in section.items() if key != "name"}
    parts = [method, numbers.assignments(shown)]
    return " ".join(part for part in parts if part)


def _name_of(line: TrialLine) -> str:
    as_written = line.role == "as_written"
    return config_name(line.method, shown_values(line.values, as_written=as_written))


def _latest_confirmed(
    protocol: ProtocolReport, confirmations: Iterable[Confirmation]
) -> _Confirmed | None:
    """Return the latest confirmation that has both the best config and the baseline."""
    assert protocol.best is not None
    name = _name_of(protocol.best)
    for confirmation in confirmations:
        baselines = [line for line in confirmation.lines if line.is_baseline]
        bests = [
            line
            for line in confirmation.lines
            if not line.is_baseline
            and line.gain is not None
            and config_name(line.method, line.values) == name
        ]
        if baselines and bests:
            return _Confirmed(confirmation, bests[0], baselines[0])
    return None


def _over_seeds(confirmation: Confirmation, best: ConfirmedLine, baseline: ConfirmedLine) -> str:
    gain = best.gain
    assert gain is not None, "only leaders with a gain are taken"
    seeds = numbers.counted(gain.num, "seed")
    best_miou = numbers.percent(best.best_val_miou.mean)
    baseline_miou = numbers.percent(baseline.best_val_miou.mean)
    name = config_name(best.method, best.values)
    difference = numbers.interval(numbers.points(gain.mean), gain.half_width)
    interval = ""
    if gain.half_width is not None:
        interval = f" ({100 * confirmation.confidence:.4g} % interval)"
    return (
        f"Over {seeds} that the search never used, the student has mIoU {best_miou} % with {name} "
        f"and {baseline_miou} % alone (baseline): {difference} points{interval}. "
        f"{_VERDICTS[best.verdict]}"
    )


def _unconfirmed(protocol: ProtocolReport, gain: Gain) -> str:
    assert protocol.best is not None, "there is a gain"
    points = numbers.points(gain.best_epoch_miou)
    sentence = (
        f"The best config, {_name_of(protocol.best)}, has a gain of {points} points of mIoU over "
        "the student alone (baseline)."
    )
    if protocol.best.role == "run":
        return sentence
    return (
        f"{sentence} The search itself cannot show how certain that is, since its best was lucky "
        "too: `attnfd-ray confirm FILE` runs both over fresh seeds."
    )
