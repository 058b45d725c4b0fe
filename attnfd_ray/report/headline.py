"""What a search came to, in a few sentences: how much was gained, over what, and how sure that
is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

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


def headline(shown: ExperimentReport) -> str | None:
    """Return the sentences on the best config of an experiment; None where there is no gain to
    speak of.
    """
    protocol = next((protocol for protocol in shown.protocols if protocol.best), None)
    if protocol is None or protocol.gain is None:
        return None
    lines = _confirmed(protocol, shown.confirmations)
    first = _unconfirmed(protocol, protocol.gain) if lines is None else _over_seeds(*lines)
    teacher = protocol.teacher.best_val_miou if protocol.teacher else None
    return first if teacher is None else f"{first} The teacher has {numbers.percent(teacher)} %."


def config_name(method: str, values: Mapping[str, Any]) -> str:
    """Return a method with what was searched of it: `attnfd layers=[aspp] loss_weight=2`."""
    rest = dict(values)
    chosen = rest.pop("method", None) or {}
    return " ".join(
        filter(
            None,
            [method, numbers.assignments(rest | {k: v for k, v in chosen.items() if k != "name"})],
        )
    )


def _name_of(line: TrialLine) -> str:
    return config_name(line.method, shown_values(line.values, as_written=line.role == "as_written"))


def _confirmed(
    protocol: ProtocolReport, confirmations: Iterable[Confirmation]
) -> tuple[Confirmation, ConfirmedLine, ConfirmedLine] | None:
    """Return the latest confirmation of the best config, with that config's line and the
    baseline's.
    """
    assert protocol.best is not None
    best = _name_of(protocol.best)
    for confirmation in confirmations:
        baseline = next((line for line in confirmation.lines if line.is_baseline), None)
        others = (
            line for line in confirmation.lines if not line.is_baseline and line.gain is not None
        )
        ours = next(
            (line for line in others if config_name(line.method, line.values) == best), None
        )
        if baseline and ours:
            return confirmation, ours, baseline
    return None


def _over_seeds(confirmation: Confirmation, ours: ConfirmedLine, baseline: ConfirmedLine) -> str:
    gain = ours.gain
    assert gain is not None, "only leaders with a gain are taken"
    means = [numbers.percent(line.best_val_miou.mean) for line in (ours, baseline)]
    difference = numbers.interval(numbers.points(gain.mean), gain.half_width)
    seeds = numbers.counted(gain.num, "seed")
    interval = (
        f" ({100 * confirmation.confidence:.4g} % interval)" if gain.half_width is not None else ""
    )
    return (
        f"Over {seeds} that the search never used, the student has mIoU {means[0]} % with "
        f"{config_name(ours.method, ours.values)} and {means[1]} % alone (baseline): {difference} "
        f"points{interval}. "
        f"{_VERDICTS[ours.verdict]}"
    )


def _unconfirmed(protocol: ProtocolReport, gain: Gain) -> str:
    assert protocol.best is not None, "there is a gain"
    name = _name_of(protocol.best)
    points = numbers.points(gain.best_epoch_miou)
    sentence = f"The best config, {name}, has a gain of {points} points of mIoU over the student alone (baseline)."
    if protocol.best.role == "run":
        return sentence
    return (
        f"{sentence} How sure that is, a search cannot say, since its best is lucky too: "
        "`attnfd-ray confirm FILE` "
        "runs both over fresh seeds."
    )
