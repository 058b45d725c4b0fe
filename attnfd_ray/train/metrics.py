"""Scores from an integer confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attnfd_ray.config.types import IGNORED


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Fractions in 0..1. `class_iou` is None for a class that is neither labelled nor predicted
    anywhere.
    """

    miou: float
    pixel_acc: float
    class_acc: float
    class_iou: list[float | None]


def confusion(labels: Tensor, predictions: Tensor, *, num_classes: int) -> Tensor:
    """Return counts [label, prediction] int64; pixels whose label is ignored count nowhere."""
    kept = labels != IGNORED
    cells = labels[kept] * num_classes + predictions[kept]
    return torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def scores(confusion_CC: Tensor) -> Scores:
    """Return mIoU, pixel accuracy and mean class accuracy; classes that occur nowhere are left out
    of the means.
    """
    counts = confusion_CC.double().cpu()
    hits, labelled, predicted = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    union = labelled + predicted - hits
    iou = hits / union  # nan where a class occurs nowhere
    accuracy = hits / labelled
    total = labelled.sum()
    return Scores(
        miou=_mean(iou),
        pixel_acc=float(hits.sum() / total) if total else 0.0,
        class_acc=_mean(accuracy),
        class_iou=[None if value.isnan() else float(value) for value in iou],
    )


def _mean(values: Tensor) -> float:
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else 0.0
