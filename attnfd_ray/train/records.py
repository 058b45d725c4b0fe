"""What a run reports: a record for each epoch, and one at the end. No ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from attnfd_ray.train.metrics import Scores


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One finished epoch; epochs count from 1 and scores are fractions in 0..1.

    `loss_terms` are weighted and sum to `train_loss`. `lr` is the backbone's at the epoch's last
    step. `wall_s` covers training and evaluation. `gradient_norms` and `gradient_cosines` are those
    of `train.gradients.GradientMeter`. They are empty where nothing was measured, as in checkpoints
    of versions that did not measure.
    """

    epoch: int
    epochs_total: int
    train_loss: float
    loss_terms: dict[str, float]
    val_miou: float
    val_pixel_acc: float
    val_class_acc: float
    class_iou: list[float | None]
    lr: float
    images_per_s: float
    wall_s: float
    best_miou: float
    best_epoch: int
    gradient_norms: dict[str, float] = field(default_factory=dict)
    gradient_cosines: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a run.

    `best_weights` is the file of the best epoch's student, and `test` its scores on
    `data.test_split`. `test` is None without a test split or for a run that was stopped early.
    """

    last: EpochRecord
    stopped_early: bool
    student_params: int
    best_weights: Path
    test: Scores | None = None
