"""FitNet: the student's features regress the teacher's.

Source: Romero et al., ICLR 2015, arXiv 1412.6550. The loss added to the cross-entropy is
loss_weight * mean((W S - T)^2), with W a 1x1 convolution.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.config.types import Layers, LossWeight
from attnfd_ray.distill.features import in_full_precision
from attnfd_ray.distill.layerwise import LayerSettings, LayerwiseMethod


class FitNet(LayerwiseMethod):
    """Regression of raw features."""

    class Settings(LayerSettings):
        """`method: {name: fitnet, ...}`."""

        name: Literal["fitnet"] = "fitnet"
        layers: Layers = ["decoder"]
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss terms; 0 trains the student without distillation "
                "(10 in CIRKD's experiments, CVPR 2022, which add kd of weight 1)."
            ),
        ] = 10.0

    def connector(self, student_channels: int, teacher_channels: int) -> nn.Module:
        """Return a 1x1 convolution without a bias."""
        return nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False)

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return squared_error(student_NCHW, teacher_NCHW)


@in_full_precision
def squared_error(student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
    """Return the mean of (S - T)^2 over all elements, a scalar >= 0."""
    return F.mse_loss(student_NCHW, teacher_NCHW)
