"""AT: the student is active at the same positions as the teacher.

Source: Zagoruyko & Komodakis, ICLR 2017, arXiv 1612.03928. Let a be the mean over channels of F^2,
one number a position, scaled to a unit vector for each image. The loss added to the cross-entropy
is loss_weight * mean over positions and images of (a_student - a_teacher)^2. Channels may differ.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from attnfd_ray.config.types import Layers, LossWeight
from attnfd_ray.distill.features import in_full_precision
from attnfd_ray.distill.layerwise import LayerSettings, LayerwiseMethod


class AttentionTransfer(LayerwiseMethod):
    """Attention transfer."""

    class Settings(LayerSettings):
        """`method: {name: at, ...}`."""

        name: Literal["at"] = "at"
        layers: Layers = ["decoder"]
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss terms; 0 trains the student without distillation. "
                "A feature with more positions needs a larger weight, because the term is a mean "
                "over positions (10000 in CIRKD's Cityscapes experiments, CVPR "
                "2022, which add kd of weight 1)."
            ),
        ] = 10_000.0

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return attention_distance(student_NCHW, teacher_NCHW)


@in_full_precision
def attention_distance(student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
    """Return the mean over positions and images of (a_student - a_teacher)^2.

    It is in [0, 2 / positions] and invariant to scaling either side.
    """
    return F.mse_loss(_activity(student_NCHW), _activity(teacher_NCHW))


def _activity(features_NCHW: Tensor) -> Tensor:
    """Return a, [N, positions], a unit vector for each image."""
    squares_NHW = features_NCHW.square().mean(dim=1)
    return F.normalize(squares_NHW.flatten(1), dim=1)
