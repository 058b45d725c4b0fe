"""Each class by its name: how well the teacher, the baseline and the best config tell it."""

from __future__ import annotations

from collections.abc import Sequence

from attnfd_ray.analysis.records import ClassLine, ProtocolReport, TrialLine
from attnfd_ray.store.store import Store


def class_lines(store: Store, report: ProtocolReport) -> list[ClassLine]:
    """Return a line per class, or nothing where the store has no names (older rows) or no scores of
    classes.
    """
    heads = [report.teacher, report.baseline, report.best]
    names = _names(store, [line.trial_id for line in heads if line])
    scores = [_class_iou(store, line) for line in heads]
    if not names or not any(scores):
        return []
    # a store that was handed on may hold a teacher of other classes
    columns = [found if len(found) == len(names) else [None] * len(names) for found in scores]
    return [
        ClassLine(name=name, teacher=teacher, baseline=baseline, best=best)
        for name, teacher, baseline, best in zip(names, *columns, strict=True)
    ]


def _names(store: Store, trial_ids: Sequence[str]) -> list[str]:
    rows = store.trials(columns=["trial_id", "class_names"]).to_pylist()
    known = {row["trial_id"]: row["class_names"] for row in rows}
    return next((known[trial_id] for trial_id in reversed(trial_ids) if known[trial_id]), [])


def _class_iou(store: Store, line: TrialLine | None) -> list[float | None]:
    if line is None:
        return []
    rows = store.epochs(line.trial_id, columns=["epoch", "class_iou"]).to_pylist()
    return next((row["class_iou"] or [] for row in rows if row["epoch"] == line.best_epoch), [])
