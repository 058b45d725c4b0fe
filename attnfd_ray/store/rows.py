"""The rows that writers append: one record per row, one field per column. No pyarrow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, get_args

from attnfd_ray.store.schema import SCHEMA_VERSION
from attnfd_ray.terms import Role, TrialState


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """The columns that both tables have.

    `attempt` counts from 1; `search_id` is None for a run of `train`.
    """

    experiment: str
    trial_id: str
    seed: int
    method: str
    role: Role
    search_id: str | None = None
    attempt: int = 1
    time_utc: datetime = field(default_factory=_now)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        assert self.role in get_args(Role), self.role
        assert self.attempt >= 1, self.attempt
        assert self.time_utc.tzinfo is not None, "time_utc needs a time zone"

    def to_dict(self) -> dict[str, Any]:
        """Return column -> value."""
        return {column.name: getattr(self, column.name) for column in dataclasses.fields(self)}


@dataclass(frozen=True, kw_only=True)
class EpochRow(_Row):
    """One finished epoch, counted from 1.

    mIoU and accuracies are fractions 0..1; `wall_s` is the time of this epoch alone.
    """

    epoch: int
    epochs_total: int
    train_loss: float | None = None
    loss_terms: Mapping[str, float] = field(default_factory=dict)
    val_miou: float | None = None
    val_pixel_acc: float | None = None
    val_class_acc: float | None = None
    class_iou: Sequence[float | None] | None = None
    protocol: str | None = None
    lr: float | None = None
    images_per_s: float | None = None
    wall_s: float | None = None
    gradient_norms: Mapping[str, float] | None = None
    gradient_cosines: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        assert 1 <= self.epoch <= self.epochs_total, (self.epoch, self.epochs_total)
        _check_fractions(
            self.val_miou, self.val_pixel_acc, self.val_class_acc, *(self.class_iou or ())
        )


@dataclass(frozen=True, kw_only=True)
class TrialRow(_Row):
    """The state of a trial: one row when an attempt starts (RUNNING), one when it ends.

    mIoU and accuracies are fractions 0..1; `wall_s` is the time of all attempts together.
    `checkpoint` may be any path: the store makes it relative if the file is inside the store.
    """

    state: TrialState
    stop_reason: str | None = None
    failure_kind: str | None = None
    failure_text: str | None = None
    config_json: str | None = None
    config_hash: str | None = None
    searched_json: str | None = None
    best_val_miou: float | None = None
    best_epoch: int | None = None
    last_val_miou: float | None = None
    test_miou: float | None = None
    test_pixel_acc: float | None = None
    test_class_acc: float | None = None
    test_class_iou: Sequence[float | None] | None = None
    test_protocol: str | None = None
    epochs_done: int | None = None
    epochs_total: int | None = None
    protocol: str | None = None
    student_params: int | None = None
    latency_ms: float | None = None
    latency_protocol: str | None = None
    teacher_hash: str | None = None
    data_hash: str | None = None
    class_names: Sequence[str] | None = None
    checkpoint: str | None = None
    git_commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None
    device: str | None = None
    wall_s: float | None = None
    peak_mem_mib: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.stop_reason is None or self.state is TrialState.PRUNED, self.state
        _check_fractions(self.best_val_miou, self.last_val_miou)
        _check_fractions(
            self.test_miou, self.test_pixel_acc, self.test_class_acc, *(self.test_class_iou or ())
        )


def _check_fractions(*values: float | None) -> None:
    """Refuse percentages, which would be wrong by a factor of 100 in every report.

    NaN passes: a diverged run measures it.
    """
    for value in values:
        if value is not None and not math.isnan(value):
            assert 0 <= value <= 1, f"{value} is not a fraction 0..1"
