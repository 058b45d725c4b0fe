"""OFD: the student's features before a ReLU follow the teacher's, as far as the ReLU passes them.

Source: a comprehensive overhaul of feature distillation, Heo et al., ICCV 2019, arXiv 1904.01866,
as its segmentation code implements it. Let S = connector(student), and T' = max(teacher, m) before
a ReLU, with m = E[x | x < 0] of a channel whose values are N(shift, scale^2) by the teacher's
BatchNorm. A layer's distance is

    D = mean over images of the sum of (S - T')^2 where S > T' or T' > 0

and the loss added to the cross-entropy is

    loss_weight * sum over layers of D / divisor

Where both sides stay below their ReLU, the student is left free.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from attnfd_ray.config.types import Layers, LossWeight
from attnfd_ray.distill import features
from attnfd_ray.distill.features import in_full_precision, resized
from attnfd_ray.distill.layerwise import LayerSettings, LayerwiseMethod
from attnfd_ray.distill.method import BatchNormStats, Networks
from attnfd_ray.distill.teacher import TeacherMode
from attnfd_ray.errors import ConfigError

# the layers it is defined for, all before a ReLU, and the divisor of the distance at each
DIVISORS = {"stage1": 8, "stage2": 4, "stage3": 2, "stage4": 1, "aspp_pre": 1, "decoder_pre": 16}


def _defined(layers: list[str]) -> list[str]:
    unknown = [layer for layer in layers if layer not in DIVISORS]
    if unknown:
        raise ValueError(
            f"OFD compares features before a ReLU: {', '.join(DIVISORS)}; not '{unknown[0]}'"
        )
    return layers


class OFD(LayerwiseMethod):
    """Pre-ReLU features with a margin and a partial distance; the teacher normalises by batch."""

    teacher_mode: TeacherMode = "batch_statistics"

    class Settings(LayerSettings):
        """`method: {name: ofd, ...}`."""

        name: Literal["ofd"] = "ofd"
        layers: Annotated[Layers, AfterValidator(_defined)] = list(DIVISORS)
        connector_epochs: Annotated[
            Literal[0, 1],
            Field(
                description="The number of epochs at the start in which only the connectors learn "
                "(1 as published)."
            ),
        ] = 1
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss terms; 0 trains the student without distillation "
                "(published: 1e-5 x the sum over a batch of 6, which is 6e-5 x the mean over its "
                "images)."
            ),
        ] = 6e-5

    def __init__(self, settings: Settings, networks: Networks) -> None:
        super().__init__(settings, networks)
        for layer in settings.layers:
            if layer not in networks.teacher_norms:
                raise ConfigError(
                    f"method.layers: '{layer}' comes from no BatchNorm of the teacher, which OFD "
                    "needs for its margin; leave it out"
                )
            self.register_buffer(f"margin_{layer}", margin(networks.teacher_norms[layer]))

    def connector(self, student_channels: int, teacher_channels: int) -> nn.Module:
        """Return a 1x1 convolution with BatchNorm."""
        return features.connector(student_channels, teacher_channels)

    def frozen_prefixes(self, epoch: int) -> tuple[str, ...]:
        """Freeze the student while only the connectors learn."""
        if epoch <= self.settings.connector_epochs:
            return ("student",)
        return ()

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        terms = {}
        for layer, connect in self.connectors.items():
            target = teacher[layer].detach()
            guess = resized(connect(student[layer]), target)
            margin_C = self.get_buffer(f"margin_{layer}")
            distance = partial_distance(guess, target, margin_C=margin_C) / DIVISORS[layer]
            terms[f"ofd/{layer}"] = self.settings.loss_weight * distance
        return terms


def margin(norm: BatchNormStats) -> Tensor:
    """Return E[x | x < 0] for x ~ N(shift, scale^2) of each channel, [C].

    Where P(x < 0) is at most 0.001 it is -3 scale.
    """
    shift = norm.shift
    scale = norm.scale.abs().clamp(min=torch.finfo(norm.scale.dtype).tiny)
    below = torch.special.ndtr(-shift / scale)  # P(x < 0)
    ratio = shift / scale
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    return torch.where(below > 1e-3, shift - scale * density / below, -3 * scale)


@in_full_precision
def partial_distance(student_NCHW: Tensor, teacher_NCHW: Tensor, *, margin_C: Tensor) -> Tensor:
    """Return the sum of (S - T')^2 where S > T' or T' > 0, as a mean over images, >= 0."""
    target_NCHW = torch.maximum(teacher_NCHW, margin_C[:, None, None])
    compared = (student_NCHW > target_NCHW) | (target_NCHW > 0)
    squares_NCHW = (student_NCHW - target_NCHW).square()
    return (squares_NCHW * compared).sum() / len(student_NCHW)
