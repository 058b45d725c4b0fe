"""Scores from an integer confusion matrix. No ray."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attnfd_ray.config.types import IGNORED


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Fractions in 0..1. `class_iou` is None for a class that is never labelled nor predicted."""

    miou: float
    pixel_acc: float
    class_acc: float
    class_iou: list[float | None]


def confusion(labels: Tensor, predictions: Tensor, *, num_classes: int) -> Tensor:
    """Return counts_CC[label, prediction], int64, without pixels whose label is ignored."""
    is_labelled = labels != IGNORED
    cells = labels[is_labelled] * num_classes + predictions[is_labelled]
    return torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def scores(confusion_CC: Tensor) -> Scores:
    """Return mIoU, pixel accuracy and mean class accuracy.

    The means are over classes that are labelled or predicted somewhere.
    """
    counts = confusion_CC.double().cpu()
    hits = counts.diagonal()
    labelled = counts.sum(dim=1)
    predicted = counts.sum(dim=0)
    union = labelled + predicted - hits
    iou = hits / union  # nan for a class that is never labelled nor predicted
    accuracy = hits / labelled
    total = labelled.sum()
    pixel_acc = 0.0
    if total:
        pixel_acc = float(hits.sum() / total)
    return Scores(
        miou=_mean(iou),
        pixel_acc=pixel_acc,
        class_acc=_mean(accuracy),
        class_iou=[_float_or_none(value) for value in iou],
    )


def _float_or_none(value: Tensor) -> float | None:
    if value.isnan():
        return None
    return float(value)


def _mean(values: Tensor) -> float:
    known = values[~values.isnan()]
    if not len(known):
        return 0.0
    return float(known.mean())
