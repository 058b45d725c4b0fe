"""AT: the student's activity is where the teacher's is (Zagoruyko & Komodakis, ICLR 2017, arXiv
1612.03928).

With a = mean over channels of F^2, one number a position, made a unit vector for each image, the
loss added to the cross-entropy is loss_weight * mean over positions and images of (a_student -
a_teacher)^2. Channels may differ.
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
                description="10000 in CIRKD's Cityscapes experiments (CVPR 2022), which add KD of "
                "weight 1; "
                "goes with the number of positions, of which the term is a mean of unit vectors"
            ),
        ] = 10_000.0

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return attention_distance(student_NCHW, teacher_NCHW)


@in_full_precision
def attention_distance(student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
    """Return the mean of (a_student - a_teacher)^2, in [0, 2 / positions]; scaling either side
    changes nothing.
    """
    student_NP, teacher_NP = (
        F.normalize(side.square().mean(dim=1).flatten(1), dim=1)
        for side in (student_NCHW, teacher_NCHW)
    )
    return F.mse_loss(student_NP, teacher_NP)
