"""The settings of AttnFD, and which of their combinations are refused. Imports no network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from attnfd_ray.config.base import rule_error
from attnfd_ray.config.rules import Finding
from attnfd_ray.config.schema import MethodSettings
from attnfd_ray.config.types import Layers, LossWeight
from attnfd_ray.distill.cbam import Form, Part, Pooling
from attnfd_ray.distill.gates import StudentGate, TeacherGate
from attnfd_ray.distill.normalised import Normalisation
from attnfd_ray.distill.teacher import TeacherMode


class AttnFDSettings(MethodSettings):
    """What AttnFD, its presets' methods and methods derived from it have in common."""

    name: Literal["attnfd"] = "attnfd"
    layers: Layers = ["stage4", "aspp", "decoder"]
    loss_weight: LossWeight = 2.0
    norm: Annotated[
        Normalisation,
        Field(
            description="What is scaled to length 1 before the distance: the features of the "
            "global batch, of an image, or of a pixel."
        ),
    ] = "batch"
    squared: Annotated[
        bool, Field(description="Whether the distance is squared, as in the paper.")
    ] = True
    attention: Annotated[
        Literal["both", "channel", "spatial", "none"],
        Field(
            description="The parts of the gates on both sides. Settings of a part that is left out "
            "have no effect."
        ),
    ] = "both"
    order: Annotated[
        Literal["channel_first", "spatial_first"],
        Field(description="Which part of a gate comes first, where attention is both."),
    ] = "channel_first"
    reduction_ratio: Annotated[
        int,
        Field(
            ge=1,
            description="The channels divided by the hidden channels of a channel gate. A gate "
            "from_checkpoint keeps its own ratio.",
        ),
    ] = 16
    kernel: Annotated[
        int,
        Field(
            ge=1,
            le=63,
            description="The side of a spatial gate's convolution, in pixels; an odd number.",
        ),
    ] = 7
    pooling: Annotated[
        Pooling,
        Field(description="What gates look at: the mean (avg), the maximum (max) or both."),
    ] = "both"
    student_gate: Annotated[
        StudentGate,
        Field(
            description="The gate on the student's features: learned (CBAM), parameter_free (CBAM "
            "without weights) or identity (none)."
        ),
    ] = "learned"
    teacher_gate: Annotated[
        TeacherGate,
        Field(
            description="The gate on the teacher's features, which never learns: parameter_free "
            "(CBAM without weights), random_frozen (CBAM with random weights), from_checkpoint "
            "(the gate in the teacher's file) or identity (none)."
        ),
    ] = "parameter_free"
    teacher_gate_seed: Annotated[
        int, Field(ge=0, description="The seed of the weights of a random_frozen gate.")
    ] = 0
    teacher_mode: Annotated[
        TeacherMode,
        Field(
            description="How the teacher and its gate run: eval as in use, batch_statistics with "
            "BatchNorm over the batch, train with BatchNorm over the batch and with dropout."
        ),
    ] = "eval"
    connectors: Annotated[
        Literal["always", "first_epoch"],
        Field(
            description="When the connectors learn. With first_epoch, only they learn in the first "
            "epoch, and everything but them learns afterwards."
        ),
    ] = "always"
    train_channel_mlp: Annotated[
        bool,
        Field(
            description="Whether the MLP of the student's channel gate learns; false: it keeps its "
            "first weights."
        ),
    ] = True
    divide_by_batch: Annotated[
        bool,
        Field(
            description="Whether the whole loss, cross-entropy included, is divided by "
            "train.batch_size, as in the released code."
        ),
    ] = False

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"needs an odd number, got {kernel}")
        return kernel

    @model_validator(mode="after")
    def _no_unused_values(self) -> Self:
        findings = [
            *_unused_with_identity_gates(self),
            *_unused_kernel(self),
            *_not_of_a_stored_gate(self),
            *_untrained_without_mlp(self),
        ]
        if findings:
            raise rule_error(findings)
        return self

    @property
    def form(self) -> Form:
        """How the gates of both sides are built."""
        parts: tuple[Part, ...] = ("channel", "spatial")
        if self.order == "spatial_first":
            parts = ("spatial", "channel")
        return Form(
            parts=tuple(part for part in parts if self.attention in ("both", part)),
            reduction_ratio=self.reduction_ratio,
            kernel=self.kernel,
            pooling=self.pooling,
        )


# Each rule yields (setting, message) for values that have no effect. A part that `attention` leaves
# out is exempt, so that a search over `attention` stays possible.


def _unused_with_identity_gates(settings: AttnFDSettings) -> Iterator[Finding]:
    if settings.student_gate != "identity" or settings.teacher_gate != "identity":
        return
    usual_values = {
        "attention": ("both", "none"),
        "order": ("channel_first",),
        "pooling": ("both",),
    }
    for name, usual in usual_values.items():
        value = getattr(settings, name)
        if value not in usual:
            needed = " or ".join(usual)
            text = f"needs {needed} where both sides' gates are identity, got {value}"
            yield (name,), text


def _unused_kernel(settings: AttnFDSettings) -> Iterator[Finding]:
    has_convolution = settings.student_gate == "learned" or settings.teacher_gate == "random_frozen"
    if settings.kernel != 7 and not has_convolution:
        text = f"needs 7 where no gate is learned or random_frozen, got {settings.kernel}"
        yield ("kernel",), text


def _not_of_a_stored_gate(settings: AttnFDSettings) -> Iterator[Finding]:
    if settings.teacher_gate != "from_checkpoint":
        return
    if settings.attention not in ("both", "spatial"):
        return
    for name, needed in {"kernel": 7, "pooling": "both"}.items():
        value = getattr(settings, name)
        if value != needed:
            text = (
                f"needs {needed}, as the gates of teacher_gate: from_checkpoint have, got {value}"
            )
            yield (name,), text


def _untrained_without_mlp(settings: AttnFDSettings) -> Iterator[Finding]:
    if not settings.train_channel_mlp and settings.student_gate != "learned":
        text = f"needs true: student_gate: {settings.student_gate} has no MLP to leave untrained"
        yield ("train_channel_mlp",), text
