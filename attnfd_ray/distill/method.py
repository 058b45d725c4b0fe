"""The contract of a distillation method, and how an experiment's method is built."""

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
from attnfd_ray.errors import ConfigError
from attnfd_ray.models import SegmentationModel


@dataclass(frozen=True, kw_only=True)
class BatchNormStats:
    """Scale and shift, [C], of the last BatchNorm before a tap.

    The tap's values are about N(shift, scale^2), channel by channel.
    """

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What a method may know about the two networks.

    `student_channels` and `teacher_channels` map every tap to its number of channels.
    `teacher_norms` maps a tap to the teacher's last BatchNorm before it, for taps without a ReLU in
    between. `teacher_file` is the file of the teacher, None for a teacher trained in this
    experiment. `num_classes` is the number of classes that both predict.

    >>> networks = Networks(
    ...     student_channels={"decoder": 256}, teacher_channels={"decoder": 256}, num_classes=21
    ... )
    >>> networks.student_channels["decoder"], networks.teacher_file
    (256, None)
    """

    student_channels: Mapping[str, int]
    teacher_channels: Mapping[str, int]
    teacher_norms: Mapping[str, BatchNormStats] = field(default_factory=dict)
    teacher_file: Path | None = None
    num_classes: int = 0


# of members that a method of an earlier version may define
_OLD_NAMES = {
    "resting": "frozen_prefixes",
    "cut_matters": "depends_on_batch",
    "divides_by_batch": "loss_over_batch_size",
}


class Method(nn.Module):
    """Loss terms from the features of both networks, and the modules that learn with the student.

    A method is made as `Method(settings, networks)`, with an instance of its class's `Settings` and
    a `Networks`. Its modules (gates, connectors) are trained, stored in checkpoints, and left out
    of the exported student. Making one may raise ConfigError or CheckpointError.

    `forward(student, teacher, labels_NHW)` gets the features of each network as
    `{tap: features_NCHW}`, for the taps that `taps` names, and class ids or 255 (ignored) at the
    size of the images. The teacher's features carry no gradient. It returns named scalars, whose
    sum is added to the cross-entropy. A name begins with the method's name, as in `kd/logits`; the
    names `cross_entropy` and `distillation` are taken.

    A term is already weighted, and is a mean over the images that were given. Then a batch can be
    cut over workers and accumulated parts without changing the loss. A loss of sums over the whole
    batch sets `uses_batch_sums` and passes its own sums through `batch_sums.batch_sum`. A method
    that can do neither, such as one that compares images with one another, sets `depends_on_batch`
    and gives the reason in its docstring.

    Class attributes:

    - `Settings`: the record of `method:` in the YAML, derived from `MethodSettings`.
    - `needs_teacher`: False for a method that uses no teacher.
    - `depends_on_batch`: the loss changes with the way a batch is cut.
    - `uses_batch_sums`: `forward` calls `batch_sum`; with train.accumulate it takes one more
      forward pass.
    - `teacher_mode`: how the teacher runs, see `FrozenTeacher.set_mode`.
    - `loss_over_batch_size`: the whole loss, cross-entropy included, is divided by the number of
      images once more, as in the released AttnFD code.

    `attnfd_ray.testing.methods` checks a method of your own against this contract, and
    docs/own_method.md shows one with connectors. The mean absolute difference of features with
    equal channels:

    >>> import torch
    >>> from attnfd_ray.config.schema import MethodSettings
    >>> from attnfd_ray.distill.features import resized
    >>> from attnfd_ray.distill.method import Method, Networks
    >>> class MyLoss(Method):
    ...     class Settings(MethodSettings):
    ...         name: str = "mypackage.losses:MyLoss"
    ...         layers: list[str] = ["decoder"]
    ...         loss_weight: float = 1.0
    ...
    ...     def __init__(self, settings, networks):
    ...         super().__init__()
    ...         self.settings = settings
    ...
    ...     @classmethod
    ...     def taps(cls, settings):
    ...         return tuple(settings.layers)
    ...
    ...     def forward(self, student, teacher, labels_NHW):
    ...         terms = {}
    ...         for layer in self.settings.layers:
    ...             guess = resized(student[layer], teacher[layer])
    ...             difference = (guess.float() - teacher[layer].float()).abs().mean()
    ...             terms[f"mine/{layer}"] = self.settings.loss_weight * difference
    ...         return terms
    >>> networks = Networks(student_channels={"decoder": 8}, teacher_channels={"decoder": 8})
    >>> method = MyLoss(MyLoss.Settings(loss_weight=0.5), networks)
    >>> student = {"decoder": torch.zeros(2, 8, 5, 6)}
    >>> teacher = {"decoder": torch.ones(2, 8, 10, 12)}
    >>> method(student, teacher, labels_NHW=torch.zeros(2, 40, 48, dtype=torch.long))
    {'mine/decoder': tensor(0.5000)}
    """

    Settings: ClassVar[type[MethodSettings]]
    needs_teacher: ClassVar[bool] = True
    depends_on_batch: bool = False
    uses_batch_sums: bool = False
    teacher_mode: TeacherMode = "eval"
    loss_over_batch_size: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse names of earlier versions, which would be ignored without a word."""
        super().__init_subclass__(**kwargs)
        for old, new in _OLD_NAMES.items():
            if old in vars(cls):
                raise ConfigError(f"{cls.__qualname__}.{old} is now called {new}; rename it")

    @classmethod
    def taps(cls, settings: Any) -> tuple[str, ...]:
        """Return the names of the taps it needs on both networks, each once."""
        raise NotImplementedError

    def frozen_prefixes(self, epoch: int) -> tuple[str, ...]:
        """Return prefixes of the parameters that do not learn in `epoch`, which counts from 1.

        Names start with `student` or `method`, as in `method.connectors`. By default all learn.
        """
        return ()

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        raise NotImplementedError


def method_class(settings: ExperimentSettings) -> Any:
    """Return the class of the experiment's method.

    With a loss weight of 0 that is `none`. So the baseline pays for no teacher, and is the plain
    student bit for bit.
    """
    if getattr(settings.method, "loss_weight", 1.0) == 0:
        return registry.load("method", "none")
    return registry.load("method", settings.method.name)


def build_method(
    settings: ExperimentSettings, student: SegmentationModel, teacher: FrozenTeacher | None
) -> tuple[Any, tuple[str, ...]]:
    """Return the experiment's method for these two networks, and the taps it reads.

    Raises ConfigError, with a table of the taps of both networks, where one of them lacks a tap.
    """
    kind: Any = method_class(settings)
    assert teacher is not None or not kind.needs_teacher, (
        f"method {settings.method.name} needs a teacher"
    )
    taps = kind.taps(settings.method)
    networks = {"student": student}
    if teacher is not None:
        networks["teacher"] = teacher.network
    check_taps(networks, taps)
    return kind(settings.method, _known_to_method(settings, networks, taps)), taps


def _known_to_method(
    settings: ExperimentSettings, networks: Mapping[str, SegmentationModel], taps: tuple[str, ...]
) -> Networks:
    channels = {side: channels_of(network, taps) for side, network in networks.items()}
    norms = {}
    if "teacher" in networks:
        norms = batch_norm_stats(networks["teacher"])
    file = None
    if settings.teacher is not None and settings.teacher.checkpoint:
        file = Path(settings.teacher.checkpoint)
    return Networks(
        student_channels=channels["student"],
        teacher_channels=channels.get("teacher", {}),
        teacher_norms=norms,
        teacher_file=file,
        num_classes=channels["student"]["logits"],
    )


def batch_norm_stats(network: SegmentationModel) -> dict[str, BatchNormStats]:
    """Return scale and shift of the last BatchNorm before each tap that has one."""
    stats = {}
    for tap in network.taps:
        norm = network.last_norm(tap)
        if norm is not None:
            stats[tap] = BatchNormStats(scale=norm.weight.detach(), shift=norm.bias.detach())
    return stats
