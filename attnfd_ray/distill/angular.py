"""LAD, PAD and CAD compare the directions of features; naive also compares their lengths.

With S = connector(student) and T = teacher at each layer, and |.| a norm over

    LAD  the global batch           || S/|S| - T/|T| ||^2
    PAD  the channels of a pixel    mean over pixels and images of || s/|s| - t/|t| ||^2
    CAD  the positions of a channel mean over channels and images of || s/|s| - t/|t| ||^2
    naive                           mean of (S - T)^2

the loss added to the cross-entropy is loss_weight * the sum over layers. Source: "Rethinking
Knowledge Distillation with Raw Features for Semantic Segmentation", WACV 2024, as the authors of
AttnFD re-implemented it. AttnFD with identity gates and `norm: batch` is LAD.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from attnfd_ray.config.types import Layers, LossWeight
from attnfd_ray.distill import features
from attnfd_ray.distill.fitnet import squared_error
from attnfd_ray.distill.layerwise import LayerSettings, LayerwiseMethod
from attnfd_ray.distill.normalised import normalised_distance

_NOT_PUBLISHED = Field(
    description="Factor on the loss terms; 0 trains the student without distillation (none was "
    "published; with 10 the terms have the range of those of lad)."
)


class _Settings(LayerSettings):
    layers: Layers = ["stage4", "aspp", "decoder"]


class _Connected(LayerwiseMethod):
    def connector(self, student_channels: int, teacher_channels: int) -> nn.Module:
        return features.connector(student_channels, teacher_channels)


class LAD(_Connected):
    """Layer-wise angular distillation."""

    uses_batch_sums = True

    class Settings(_Settings):
        """`method: {name: lad, ...}`."""

        name: Literal["lad"] = "lad"
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss terms; 0 trains the student without distillation "
                "(10 in the code of AttnFD's authors)."
            ),
        ] = 10.0

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return normalised_distance(student_NCHW, teacher_NCHW, norm="batch")


class PAD(_Connected):
    """Pixel-wise angular distillation."""

    class Settings(_Settings):
        """`method: {name: pad, ...}`."""

        name: Literal["pad"] = "pad"
        loss_weight: Annotated[LossWeight, _NOT_PUBLISHED] = 10.0

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return normalised_distance(student_NCHW, teacher_NCHW, norm="pixel")


class CAD(_Connected):
    """Channel-wise angular distillation."""

    class Settings(_Settings):
        """`method: {name: cad, ...}`."""

        name: Literal["cad"] = "cad"
        loss_weight: Annotated[LossWeight, _NOT_PUBLISHED] = 10.0

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        student_NPC = _pixels_by_channels(student_NCHW)
        teacher_NPC = _pixels_by_channels(teacher_NCHW)
        return normalised_distance(student_NPC, teacher_NPC, norm="pixel")


class Naive(_Connected):
    """Regression of raw features through a connector with BatchNorm."""

    class Settings(_Settings):
        """`method: {name: naive, ...}`."""

        name: Literal["naive"] = "naive"
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss terms; 0 trains the student without distillation "
                "(none was published; 10 is the default of fitnet)."
            ),
        ] = 10.0

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return squared_error(student_NCHW, teacher_NCHW)


def _pixels_by_channels(features_NCHW: Tensor) -> Tensor:
    """Return features_NPC: positions take the axis of channels, so that `norm: pixel` is CAD's."""
    return features_NCHW.flatten(2).transpose(1, 2)
