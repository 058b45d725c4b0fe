"""The contract of a distillation method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from attnfd_ray import registry
from attnfd_ray.config.schema import ExperimentSettings, MethodSettings
from attnfd_ray.distill.tap_check import channels_of, check_taps
from attnfd_ray.distill.teacher import FrozenTeacher, TeacherMode
from attnfd_ray.models import SegmentationModel


@dataclass(frozen=True, kw_only=True)
class BatchNormStats:
    """Scale and shift, [C], of the last BatchNorm before a tap: its outputs are about N(shift,
    scale^2).
    """

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What a method may know of the two networks.

    Channels at each tap; the teacher's last BatchNorm before a tap, for taps that no ReLU follows
    it in; the file the teacher came from; how many classes they predict.
    """

    student_channels: Mapping[str, int]
    teacher_channels: Mapping[str, int]
    teacher_norms: Mapping[str, BatchNormStats] = field(default_factory=dict)
    teacher_file: Path | None = None
    num_classes: int = 0


class Method(nn.Module):
    """Loss terms from the features of both sides; holds whatever has to be trained beside the
    student.

    A method is made as `Method(settings, networks)`, states its `Settings` record and the `taps` it
    wants. It is called with `{tap: features_NCHW}` of the student and of the teacher (which carry
    no gradient) and `labels_NHW`. It returns named scalars that are already weighted, each a mean
    over the images it was given, so that their sum is what is added to the cross-entropy and a
    batch may be cut at will. A loss of sums over the whole batch sets `uses_batch_sums` and takes
    them from `batch_sum`. What is neither (a distance of images from one another, say) sets
    `depends_on_batch` and says why. docs/own_method.md writes one out.
    """

    Settings: ClassVar[type[MethodSettings]]
    needs_teacher: ClassVar[bool] = True
    depends_on_batch: bool = False
    # whether `forward` calls `batch_sums.batch_sum`; with train.accumulate that takes one more
    # forward pass
    uses_batch_sums: bool = False
    # how the teacher runs, see `FrozenTeacher.set_mode`
    teacher_mode: TeacherMode = "eval"
    # the released code's extra division of the whole loss, cross-entropy included, by the number of
    # images
    loss_over_batch_size: bool = False

    @classmethod
    def taps(cls, settings: Any) -> tuple[str, ...]:
        """Return the names of the taps it wants on both networks."""
        raise NotImplementedError

    def frozen_prefixes(self, epoch: int) -> tuple[str, ...]:
        """Return which parameters do not learn in `epoch` (from 1), as prefixes: `student`,
        `method.connectors`.
        """
        return ()

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        raise NotImplementedError


def method_class(settings: ExperimentSettings) -> Any:
    """Return the class of the experiment's method; with a loss weight of 0 that is no distillation
    at all.

    So the baseline does not pay for a teacher, and is the plain student bit for bit.
    """
    if getattr(settings.method, "loss_weight", 1.0) == 0:
        return registry.load("method", "none")
    return registry.load("method", settings.method.name)


def build_method(
    settings: ExperimentSettings, student: SegmentationModel, teacher: FrozenTeacher | None
) -> tuple[Any, tuple[str, ...]]:
    """Return the experiment's method for these two networks, and the taps it listens to.

    Raises ConfigError, with a table of what there is, where one of the networks lacks a tap.
    """
    kind: Any = method_class(settings)
    assert teacher is not None or not kind.needs_teacher, (
        f"method {settings.method.name} needs a teacher"
    )
    taps = kind.taps(settings.method)
    check_taps({"student": student} | ({"teacher": teacher.network} if teacher else {}), taps)
    file = settings.teacher.checkpoint if settings.teacher else None
    student_channels = channels_of(student, taps)
    networks = Networks(
        student_channels=student_channels,
        teacher_channels=channels_of(teacher.network, taps) if teacher else {},
        teacher_norms=_norms(teacher.network) if teacher else {},
        teacher_file=Path(file) if file else None,
        num_classes=student_channels["logits"],
    )
    return kind(settings.method, networks), taps


def _norms(network: SegmentationModel) -> dict[str, BatchNormStats]:
    norms = {tap: network.last_norm(tap) for tap in network.taps}
    return {
        tap: BatchNormStats(scale=norm.weight.detach(), shift=norm.bias.detach())
        for tap, norm in norms.items()
        if norm
    }
