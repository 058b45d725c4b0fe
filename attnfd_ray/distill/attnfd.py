"""AttnFD: the student's attention-refined features follow the teacher's (arXiv 2403.05451, Sec.
3.3).

With S = connector(gate_s(student)), T = gate_t(teacher) at each layer, the loss added to the
cross-entropy is

    loss_weight * sum over layers of || S/|S| - T/|T| ||^2

where |.| is the Frobenius norm of the features of the whole batch, over all workers and accumulated
parts. That is 2 - 2 cos of the angle between S and T, in [0, 4], whatever the batch size. The
released code has the same norm. `norm: image` takes the norm of each image and the mean over
images. `norm: pixel` takes the norm of each pixel's channel vector and the mean over pixels, as the
paper words it. `presets` says what the released code and the paper do differently, with the
sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, create_model, field_validator, model_validator
from torch import Tensor
from torch.nn import functional as F

from attnfd_ray.config.base import rule_error
from attnfd_ray.config.rules import Finding
from attnfd_ray.config.schema import MethodSettings
from attnfd_ray.config.types import Layers, LossWeight
from attnfd_ray.distill import gates, presets
from attnfd_ray.distill.batch_sums import batch_sum
from attnfd_ray.distill.cbam import Form, Part, Pooling
from attnfd_ray.distill.features import TapModuleDict, connector, in_full_precision, resized
from attnfd_ray.distill.method import Method, Networks
from attnfd_ray.distill.teacher import TeacherMode

Normalisation = Literal["image", "batch", "pixel"]

_TINY = 1e-12  # keeps an all-zero map from dividing by zero; far below any norm that is met


class AttnFD(Method):
    """Attention-guided feature distillation."""

    class Settings(MethodSettings):
        """`method: {name: attnfd, ...}`."""

        name: Literal["attnfd"] = "attnfd"
        layers: Layers = ["stage4", "aspp", "decoder"]
        loss_weight: LossWeight = 2.0
        norm: Annotated[
            Normalisation,
            Field(
                description="what is scaled to length 1: the features of the global batch, an "
                "image or a pixel"
            ),
        ] = "batch"
        squared: Annotated[
            bool, Field(description="false: the distance itself, not its square")
        ] = True
        attention: Annotated[
            Literal["both", "channel", "spatial", "none"],
            Field(
                description="parts of both sides' gates; settings of a part that is left out have "
                "no effect"
            ),
        ] = "both"
        order: Annotated[
            Literal["channel_first", "spatial_first"],
            Field(description="no effect unless attention: both"),
        ] = "channel_first"
        reduction_ratio: Annotated[
            int,
            Field(
                ge=1,
                description="channels / hidden channels of a channel gate; from_checkpoint has "
                "its own",
            ),
        ] = 16
        kernel: Annotated[
            int, Field(ge=1, le=63, description="side of a spatial gate's convolution, odd")
        ] = 7
        pooling: Annotated[
            Pooling, Field(description="what gates look at: mean, maximum or both")
        ] = "both"
        student_gate: gates.StudentGate = "learned"
        teacher_gate: gates.TeacherGate = "parameter_free"
        teacher_gate_seed: Annotated[int, Field(ge=0, description="of random_frozen")] = 0
        teacher_mode: Annotated[
            TeacherMode,
            Field(
                description="the teacher and its gate: as in use, normalised by the batch, or "
                "dropping out"
            ),
        ] = "eval"
        connectors: Annotated[
            Literal["always", "first_epoch"],
            Field(
                description="when they learn; first_epoch: they alone in the first epoch, all but "
                "them afterwards"
            ),
        ] = "always"
        train_channel_mlp: Annotated[
            bool, Field(description="false: the student's stays as it was drawn")
        ] = True
        divide_by_batch: Annotated[
            bool,
            Field(
                description="the whole loss, cross-entropy included, / train.batch_size, as the "
                "released code does"
            ),
        ] = False

        @field_validator("kernel")
        @classmethod
        def _odd(cls, kernel: int) -> int:
            if kernel % 2 == 0:
                raise ValueError(f"needs an odd number, got {kernel}")
            return kernel

        @model_validator(mode="after")
        def _meant(self) -> AttnFD.Settings:
            findings = list(_meaningless(self))
            if findings:
                raise rule_error(findings)
            return self

        @property
        def form(self) -> Form:
            """How the gates of both sides are built."""
            parts: tuple[Part, ...] = ("channel", "spatial")
            if self.order == "spatial_first":
                parts = parts[::-1]
            return Form(
                parts=tuple(part for part in parts if self.attention in ("both", part)),
                reduction_ratio=self.reduction_ratio,
                kernel=self.kernel,
                pooling=self.pooling,
            )

    def __init__(self, settings: Settings, networks: Networks) -> None:
        super().__init__()
        self.settings = settings
        self.teacher_mode = settings.teacher_mode
        self.loss_over_batch_size = settings.divide_by_batch
        self.uses_batch_sums = settings.norm == "batch"
        # the teacher's BatchNorm statistics of a part of a batch are not those of the whole
        self.depends_on_batch = settings.teacher_mode != "eval"
        self.student_gates = TapModuleDict()
        self.teacher_gates = TapModuleDict()
        self.connectors = TapModuleDict()
        for layer in settings.layers:
            narrow, wide = networks.student_channels[layer], networks.teacher_channels[layer]
            self.student_gates[layer] = gates.student_gate(
                settings.student_gate,
                narrow,
                settings.form,
                train_channel_mlp=settings.train_channel_mlp,
            )
            self.teacher_gates[layer] = gates.teacher_gate(
                settings.teacher_gate,
                wide,
                settings.form,
                layer=layer,
                seed=settings.teacher_gate_seed,
                teacher_file=networks.teacher_file,
                batch_statistics=settings.teacher_mode != "eval",
            )
            self.connectors[layer] = connector(narrow, wide)

    @classmethod
    def taps(cls, settings: Settings) -> tuple[str, ...]:
        """Return the layers that are compared."""
        return tuple(settings.layers)

    def frozen_prefixes(self, epoch: int) -> tuple[str, ...]:
        """Return all but the connectors in the first epoch and those later, if they learn in the
        first only.
        """
        if self.settings.connectors == "always":
            return ()
        return ("student", "method.student_gates") if epoch == 1 else ("method.connectors",)

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        settings, terms = self.settings, {}
        for layer in settings.layers:
            target = self.teacher_gates[layer](teacher[layer])
            guess = self.connectors[layer](self.student_gates[layer](student[layer]))
            terms[f"{settings.name}/{layer}"] = settings.loss_weight * self.distance(
                resized(guess, target), target
            )
        return terms

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        """Return the distance of one layer's refined features, a scalar."""
        settings = self.settings
        return normalised_distance(
            student_NCHW, teacher_NCHW, norm=settings.norm, squared=settings.squared
        )


@in_full_precision
def normalised_distance(
    student_NCHW: Tensor, teacher_NCHW: Tensor, *, norm: Normalisation, squared: bool = True
) -> Tensor:
    """Return || S/|S| - T/|T| ||^2, in [0, 4]; scaling either side changes nothing.

    `norm: batch` is one distance for the global batch (see `batch_sums`), `image` and `pixel` are
    means over images and over pixels. Without `squared` it is || S/|S| - T/|T| ||, in [0, 2], of
    each.
    """
    if norm == "batch":
        return _batch_distance(student_NCHW, teacher_NCHW, squared=squared)
    unit_student, unit_teacher = (
        F.normalize(side if norm == "pixel" else side.flatten(1), eps=_TINY)
        for side in (student_NCHW, teacher_NCHW)
    )
    difference = unit_student - unit_teacher
    # per image or pixel; vector_norm has a gradient at 0, a square root has none
    distance = (
        difference.square().sum(dim=1) if squared else torch.linalg.vector_norm(difference, dim=1)
    )
    return distance.mean()


def _batch_distance(student_NCHW: Tensor, teacher_NCHW: Tensor, *, squared: bool) -> Tensor:
    """Return the distance of the global batch from three sums over it: S.S, T.T and S.T."""
    pairs = (
        (student_NCHW, student_NCHW),
        (teacher_NCHW, teacher_NCHW),
        (student_NCHW, teacher_NCHW),
    )
    # float64, because 2 - 2 cos of features that are nearly parallel is a small difference of large
    # sums
    products = torch.stack([(one * other).sum(dtype=torch.float64) for one, other in pairs])
    student_2, teacher_2, product = batch_sum(products)
    tiny_2 = _TINY**2
    student_norm, teacher_norm = (
        student_2.clamp(min=tiny_2).sqrt(),
        teacher_2.clamp(min=tiny_2).sqrt(),
    )
    # the first two are 1, or 0 for features that are all zero
    distance_2: Tensor = (
        student_2 / student_norm**2
        + teacher_2 / teacher_norm**2
        - 2 * product / (student_norm * teacher_norm)
    ).clamp(min=0)
    if not squared:  # the square root has no gradient at 0
        distance_2 = torch.where(distance_2 > 0, distance_2.clamp(min=tiny_2).sqrt(), 0.0)
    return distance_2.to(student_NCHW.dtype)


def _settings_of(owner: str, preset: presets.Preset) -> Any:
    """Return the settings of AttnFD with a preset's values for defaults, as `owner.Settings`."""
    chosen = preset.of_method()
    fields: dict[str, Any] = {"name": (Literal[chosen.pop("name")], preset.name)}
    for name, value in chosen.items():
        field = copy(AttnFD.Settings.model_fields[name])
        field.default = value
        fields[name] = (field.annotation, field)
    settings = create_model("Settings", __base__=AttnFD.Settings, __module__=__name__, **fields)
    settings.__qualname__ = f"{owner}.Settings"  # where pickle finds it
    settings.__doc__ = (
        f"`method: {{name: {preset.name}, ...}}`, with the defaults `attnfd-ray explain` prints."
    )
    return settings


class AttnFDRelease(AttnFD):
    """AttnFD as its authors' code runs it."""

    Settings: ClassVar[Any] = _settings_of("AttnFDRelease", presets.RELEASE)


class AttnFDPaper(AttnFD):
    """AttnFD as its paper words it."""

    Settings: ClassVar[Any] = _settings_of("AttnFDPaper", presets.PAPER)


def _meaningless(settings: AttnFD.Settings) -> Iterator[Finding]:
    """Yield (setting, message) for every value that nothing would look at; what `attention` leaves
    out is exempt.
    """
    kinds = {settings.student_gate, settings.teacher_gate}
    if kinds == {"identity"}:
        for name, usual in (
            ("attention", ("both", "none")),
            ("order", ("channel_first",)),
            ("pooling", ("both",)),
        ):
            value = getattr(settings, name)
            if value not in usual:
                yield (
                    (name,),
                    f"needs {' or '.join(usual)} where both sides' gates are identity, got {value}",
                )
    if settings.kernel != 7 and not kinds & {"learned", "random_frozen"}:
        yield (
            ("kernel",),
            f"needs 7 where no gate is learned or random_frozen, got {settings.kernel}",
        )
    if settings.teacher_gate == "from_checkpoint" and settings.attention in ("both", "spatial"):
        for name, value, needed in (
            ("kernel", settings.kernel, 7),
            ("pooling", settings.pooling, "both"),
        ):
            if value != needed:
                yield (
                    (name,),
                    (
                        f"needs {needed}, as the gates of teacher_gate: from_checkpoint have, got "
                        f"{value}"
                    ),
                )
    if not settings.train_channel_mlp and settings.student_gate != "learned":
        yield (
            ("train_channel_mlp",),
            f"needs true: student_gate: {settings.student_gate} has no MLP to leave untrained",
        )
