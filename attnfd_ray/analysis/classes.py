"""The IoU of each class for the teacher, the baseline and the best config. No torch, no ray."""

from __future__ import annotations

from collections.abc import Sequence

from attnfd_ray.analysis.records import ClassLine, ProtocolReport, TrialLine
from attnfd_ray.store.store import Store


def class_lines(store: Store, report: ProtocolReport) -> list[ClassLine]:
    """Return a line per class.

    Empty where the store has no class names (older rows) or no scores of classes.
    """
    trials = [report.teacher, report.baseline, report.best]
    names = _names(store, [line.trial_id for line in trials if line])
    scores = [_class_iou(store, line) for line in trials]
    if not names or not any(scores):
        return []
    columns = [_column(iou, len(names)) for iou in scores]
    return [
        ClassLine(name=name, teacher=teacher, baseline=baseline, best=best)
        for name, teacher, baseline, best in zip(names, *columns, strict=True)
    ]


def _column(iou: list[float | None], num_classes: int) -> list[float | None]:
    """Return the IoU of each class, None where the scores are of another number of classes.

    The teacher in a copied store may have been trained on other classes.
    """
    if len(iou) != num_classes:
        return [None] * num_classes
    return iou


def _names(store: Store, trial_ids: Sequence[str]) -> list[str]:
    """Return the class names of the last of these trials that has any."""
    table = store.trials(columns=["trial_id", "class_names"])
    names: dict[str, list[str]] = {}
    for row in table.to_pylist():
        names[row["trial_id"]] = row["class_names"]
    for trial_id in reversed(trial_ids):
        if names[trial_id]:
            return names[trial_id]
    return []


def _class_iou(store: Store, line: TrialLine | None) -> list[float | None]:
    """Return the IoU of each class at a trial's best epoch."""
    if line is None:
        return []
    table = store.epochs(line.trial_id, columns=["epoch", "class_iou"])
    for row in table.to_pylist():
        if row["epoch"] == line.best_epoch:
            return row["class_iou"] or []
    return []
