"""The gradients of the loss terms over the epochs of a trial. No torch, no ray."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from statistics import median

from attnfd_ray.analysis.records import GradientLine, ProtocolReport, TrialLine
from attnfd_ray.analysis.seeds import config_of
from attnfd_ray.config.gradients import DISTILLATION, gradient_ratio
from attnfd_ray.store.store import Store
from attnfd_ray.terms import BASELINES

_LEADERS = 5
_COLUMNS = ("epoch", "gradient_norms", "gradient_cosines")
_ALWAYS = ("as_written", "run")  # shown even where they are no leaders, or are not ranked


def gradient_lines(store: Store, report: ProtocolReport) -> list[GradientLine]:
    """Return a line for the best trial of each leading config, and for the file as written.

    Baselines are left out, and so are trials that measured nothing.
    """
    lines = [gradient_line(store, line.trial_id) for line in _shown(report)]
    return [line for line in lines if line]


def gradient_line(store: Store, trial_id: str) -> GradientLine | None:
    """Return the gradients measured over the epochs of a trial.

    None where no epoch measured any (method `none`, or an older store).
    """
    rows = store.epochs(trial_id, columns=_COLUMNS).to_pylist()
    measured = [row for row in rows if row["gradient_norms"]]
    if not measured:
        return None
    ratios = [gradient_ratio(dict(row["gradient_norms"])) for row in measured]
    known_ratios = [ratio for ratio in ratios if ratio is not None]
    last = measured[-1]
    return GradientLine(
        trial_id=trial_id,
        first_epoch=measured[0]["epoch"],
        last_epoch=last["epoch"],
        first=ratios[0],
        median=_median(known_ratios),
        last=ratios[-1],
        shares=_shares(dict(last["gradient_norms"])),
        cosines=dict(last["gradient_cosines"] or ()),
    )


def _median(values: list[float]) -> float | None:
    if not values:
        return None
    return median(values)


def _shares(norms: dict[str, float]) -> dict[str, float]:
    """Return each loss term's norm / the sum of all terms' norms."""
    terms = {name: norm for name, norm in norms.items() if name != DISTILLATION}
    total = sum(terms.values())
    if not total:
        return {}
    return {name: norm / total for name, norm in terms.items()}


def _shown(report: ProtocolReport) -> list[TrialLine]:
    """Return the best trial of each leading config, then the trials that are always shown."""
    ranked = _with_method(report.ranked)
    others = _with_method(report.others)
    by_config: dict[str, TrialLine] = {}
    for line in ranked:
        by_config.setdefault(config_of(line), line)
    shown = dict(itertools.islice(by_config.items(), _LEADERS))
    for line in (*ranked, *others):
        if line.role in _ALWAYS:
            shown.setdefault(config_of(line), line)
    return list(shown.values())


def _with_method(lines: Iterable[TrialLine]) -> list[TrialLine]:
    return [line for line in lines if line.role not in BASELINES and line.method != "none"]
