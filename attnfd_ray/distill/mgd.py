"""MGD: a generator restores the teacher's features from the student's with most pixels hidden.

Source: masked generative distillation, Yang et al., ECCV 2022. The paper's segmentation runs add
the method `cwd_logit`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from attnfd_ray.config.types import Layers, LossWeight, Probability
from attnfd_ray.distill.features import in_full_precision
from attnfd_ray.distill.layerwise import LayerSettings, LayerwiseMethod


class MGD(LayerwiseMethod):
    """Masked generative distillation.

    The hidden pixels are drawn from torch's global generator. Cutting a batch differently hides
    other pixels, so it sets `depends_on_batch`. A generator has 18 D^2 weights for a teacher of D
    channels, 75 million at the stage4 of a ResNet-101. It is not part of the exported student.
    """

    depends_on_batch = True

    class Settings(LayerSettings):
        """`method: {name: mgd, ...}`."""

        name: Literal["mgd"] = "mgd"
        layers: Layers = ["stage4"]
        masked: Annotated[
            Probability,
            Field(
                description="The probability that a pixel of the student's feature is hidden (0.75 "
                "in the paper)."
            ),
        ] = 0.75
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss terms, which are sums over channels and pixels; 0 "
                "trains the student without distillation (2e-5 in the paper, which adds cwd_logit "
                "of weight 3)."
            ),
        ] = 2e-5

    def connector(self, student_channels: int, teacher_channels: int) -> nn.Module:
        """Return a generator of the teacher's feature."""
        return MaskedGenerator(student_channels, teacher_channels, masked=self.settings.masked)

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return squared_distance(student_NCHW, teacher_NCHW)


class MaskedGenerator(nn.Module):
    """conv3x3(ReLU(conv3x3(M conv1x1(S)))) at the student's height and width.

    M_N1HW hides a pixel, in all its channels, with probability `masked`.
    """

    def __init__(self, student_channels: int, teacher_channels: int, *, masked: float) -> None:
        super().__init__()
        self.masked = masked
        self.align = nn.Conv2d(student_channels, teacher_channels, kernel_size=1)
        self.generate = nn.Sequential(
            nn.Conv2d(teacher_channels, teacher_channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, kernel_size=3, padding=1),
        )

    def forward(self, student_NCHW: Tensor) -> Tensor:
        visible_N1HW = torch.rand_like(student_NCHW[:, :1], dtype=torch.float32) >= self.masked
        generated: Tensor = self.generate(self.align(student_NCHW) * visible_N1HW)
        return generated


@in_full_precision
def squared_distance(student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
    """Return || S - T ||^2 as a mean over images, a scalar >= 0."""
    return (student_NCHW - teacher_NCHW).square().sum() / len(student_NCHW)
