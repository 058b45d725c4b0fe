"""How strongly distillation pulls at the student beside the cross-entropy, from what the epochs of
a trial measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from statistics import median

from attnfd_ray.analysis.records import GradientLine, ProtocolReport, TrialLine
from attnfd_ray.analysis.seeds import config_of
from attnfd_ray.config.gradients import DISTILLATION, gradient_ratio
from attnfd_ray.store.rows import BASELINES
from attnfd_ray.store.store import Store

_LEADERS = 5
_ALWAYS = ("as_written", "run")  # shown even where they lead nothing, or are not ranked


def gradient_lines(store: Store, report: ProtocolReport) -> list[GradientLine]:
    """Return a line for the best trial of each leading config, and for the file as written; none
    for baselines.

    Trials that measured nothing are left out.
    """
    lines = (gradient_line(store, line.trial_id) for line in _shown(report))
    return [line for line in lines if line]


def gradient_line(store: Store, trial_id: str) -> GradientLine | None:
    """Return what the epochs of a trial measured, None where none did (method none, or an older
    store).
    """
    rows = store.epochs(
        trial_id, columns=["epoch", "gradient_norms", "gradient_cosines"]
    ).to_pylist()
    measured = [row for row in rows if row["gradient_norms"]]
    if not measured:
        return None
    ratios = [gradient_ratio(dict(row["gradient_norms"])) for row in measured]
    known = [ratio for ratio in ratios if ratio is not None]
    norms = dict(measured[-1]["gradient_norms"])
    of_terms = {name: norm for name, norm in norms.items() if name != DISTILLATION}
    whole = sum(of_terms.values())
    return GradientLine(
        trial_id=trial_id,
        first_epoch=measured[0]["epoch"],
        last_epoch=measured[-1]["epoch"],
        first=ratios[0],
        median=median(known) if known else None,
        last=ratios[-1],
        shares={name: norm / whole for name, norm in of_terms.items()} if whole else {},
        cosines=dict(measured[-1]["gradient_cosines"] or ()),
    )


def _shown(report: ProtocolReport) -> list[TrialLine]:
    """Return the best trial of each of the first configs, then those that are always shown."""
    ranked, others = _students(report.ranked), _students(report.others)
    by_config: dict[str, TrialLine] = {}
    for line in ranked:
        by_config.setdefault(config_of(line), line)
    shown = dict(itertools.islice(by_config.items(), _LEADERS))
    for line in (*ranked, *others):
        if line.role in _ALWAYS:
            shown.setdefault(config_of(line), line)
    return list(shown.values())


def _students(lines: Iterable[TrialLine]) -> list[TrialLine]:
    return [line for line in lines if line.role not in BASELINES and line.method != "none"]
