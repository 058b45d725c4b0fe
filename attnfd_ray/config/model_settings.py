"""The sections `student:` and `teacher:`. No torch, no ray."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from attnfd_ray.config.arch_choices import allowed_by_arch, with_defaults
from attnfd_ray.config.base import StrictModel
from attnfd_ray.config.fields import Identity
from attnfd_ray.config.types import (
    AboveZero,
    FirstWeights,
    NumberInText,
    Positive,
    Probability,
    Seed,
    Sha256,
    registered,
)


class ModelSettings(StrictModel):
    """A segmentation network."""

    arch: Annotated[
        str,
        registered("arch"),
        Field(
            description="The architecture: deeplabv3plus, smp/Class, torchvision/name or "
            "package.module:Class."
        ),
    ] = "deeplabv3plus"
    backbone: Annotated[
        str,
        allowed_by_arch("backbone"),
        Field(
            description="The backbone: a short name such as resnet18, a name that the arch knows, "
            "or package.module:factory."
        ),
    ] = "resnet18"
    width: Annotated[
        float,
        Field(gt=0, le=4, description="A factor on every channel count."),
        allowed_by_arch("width"),
    ] = 1.0
    output_stride: Annotated[
        int,
        NumberInText,
        allowed_by_arch("output_stride"),
        Field(description="Input pixels per pixel of the last stage: 16 or 8 for deeplabv3plus."),
    ] = 16
    pretrained: Annotated[
        FirstWeights,
        Field(
            description="The first weights: none, imagenet, or the file of a backbone or of a "
            "whole network."
        ),
    ] = "none"
    pretrained_sha256: Annotated[
        Sha256 | None,
        Field(
            description="The hash of the file of `pretrained`: filled in when an experiment "
            "starts, and checked wherever the file is loaded."
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults_of_arch(cls, settings: Any) -> Any:
        return with_defaults(settings)


class TeacherTraining(StrictModel):
    """How a teacher is trained, once, before the first student.

    Settings that are not here are those of the student.
    """

    epochs: Annotated[Positive, Field(description="The epochs of the teacher's training.")]
    batch_size: Annotated[
        Positive | None,
        Field(description="The teacher's global batch size; null: as for the student."),
    ] = None
    lr: Annotated[
        AboveZero | None,
        Field(description="The teacher's learning rate; null: as for the student."),
    ] = None
    seed: Annotated[Seed, Field(description="The seed of the teacher's training.")] = 1


class TeacherSettings(ModelSettings):
    """The network to learn from: a file of weights, or the settings to train it with."""

    checkpoint: Annotated[
        str | None,
        Field(min_length=1, description="A file of the teacher's weights; null: it is trained."),
    ] = None
    train: Annotated[
        TeacherTraining | None,
        Field(description="How the teacher is trained, where no checkpoint is given."),
    ] = None
    min_miou: Annotated[
        Probability,
        Field(description="A teacher whose mIoU on the val split is lower is refused."),
        Identity.NONE,
    ] = 0.0
