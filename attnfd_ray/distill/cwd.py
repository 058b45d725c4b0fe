"""CWD: in every channel the student looks at the positions that the teacher looks at.

Source: Shu et al., ICCV 2021. With p = softmax(channel / T) over the positions of one channel of
one image, the loss added to the cross-entropy is

    loss_weight * T^2 * mean over channels and images of KL(p_teacher || p_student)
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from attnfd_ray.config.types import AboveZero, Layers, LossWeight
from attnfd_ray.distill.kd import softened_divergence
from attnfd_ray.distill.layerwise import LayerSettings, LayerwiseMethod, LogitMethod, LogitSettings

_TEMPERATURE = Field(
    description="The temperature of the softmax over positions (4 in TorchDistiller's script)."
)


class LogitCWD(LogitMethod):
    """Channel-wise distillation of the logits."""

    class Settings(LogitSettings):
        """`method: {name: cwd_logit, ...}`."""

        name: Literal["cwd_logit"] = "cwd_logit"
        temperature: Annotated[AboveZero, _TEMPERATURE] = 4.0
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss term; 0 trains the student without distillation (3 "
                "in TorchDistiller's script)."
            ),
        ] = 3.0

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return channel_divergence(student_NCHW, teacher_NCHW, temperature=self.settings.temperature)


class FeatureCWD(LayerwiseMethod):
    """Channel-wise distillation of features."""

    class Settings(LayerSettings):
        """`method: {name: cwd_feature, ...}`."""

        name: Literal["cwd_feature"] = "cwd_feature"
        layers: Layers = ["decoder"]
        temperature: Annotated[AboveZero, _TEMPERATURE] = 4.0
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss terms; 0 trains the student without distillation "
                "(50 in TorchDistiller's script)."
            ),
        ] = 50.0

    def connector(self, student_channels: int, teacher_channels: int) -> nn.Module:
        """Return a 1x1 convolution where channels differ.

        It has no bias, because the softmax over positions is invariant to one.
        """
        if student_channels == teacher_channels:
            return nn.Identity()
        return nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False)

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return channel_divergence(student_NCHW, teacher_NCHW, temperature=self.settings.temperature)


def channel_divergence(student_NCHW: Tensor, teacher_NCHW: Tensor, *, temperature: float) -> Tensor:
    """Return T^2 * KL over the positions of a channel, a mean over channels and images, >= 0."""
    return softened_divergence(
        student_NCHW.flatten(2), teacher_NCHW.flatten(2), dim=2, temperature=temperature
    )
