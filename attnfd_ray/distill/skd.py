"""SKD: regions of a feature relate to one another as in the teacher.

Source: structured knowledge distillation, Liu et al., CVPR 2019. Only the pair-wise part is here.
The pixel-wise part is the method `kd`; the adversarial part is left out.
"""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from attnfd_ray.config.types import Layers, LossWeight
from attnfd_ray.distill.features import in_full_precision
from attnfd_ray.distill.layerwise import LayerSettings, LayerwiseMethod

_TINY = 1e-8  # the original's, added to a norm


class SKD(LayerwiseMethod):
    """Pair-wise similarity distillation; it has no parameters."""

    class Settings(LayerSettings):
        """`method: {name: skd, ...}`."""

        name: Literal["skd"] = "skd"
        layers: Layers = ["decoder"]
        pool_scale: Annotated[
            float,
            Field(
                gt=0,
                le=1,
                description="The side of a region divided by the side of the feature map (0.5 in "
                "the original, which makes 2 x 2 regions).",
            ),
        ] = 0.5
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss terms; 0 trains the student without distillation "
                "(1 in the original; 10 in CIRKD's experiments, CVPR 2022, with regions of 2 x 2 "
                "pixels)."
            ),
        ] = 1.0

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return pairwise_distance(student_NCHW, teacher_NCHW, pool_scale=self.settings.pool_scale)


@in_full_precision
def pairwise_distance(student_NCHW: Tensor, teacher_NCHW: Tensor, *, pool_scale: float) -> Tensor:
    """Return the sum over region pairs of (a^s - a^t)^2 / M^2 as a mean over images, in [0, 4].

    a is the cosine of the features of two of the M regions. The distance is invariant to scaling
    either side by a positive number.
    """
    student_NMM = similarities(student_NCHW, pool_scale)
    teacher_NMM = similarities(teacher_NCHW, pool_scale)
    return (student_NMM - teacher_NMM).square().mean()


def similarities(features_NCHW: Tensor, pool_scale: float) -> Tensor:
    """Return cosines_NMM of the max-pooled regions.

    The side of a region is rounded up, so that a scale of 1/2 also makes 2 x 2 regions where a side
    is odd. The original rounds down, which leaves a strip one pixel wide. As in the original, no
    gradient flows through a region's norm.
    """
    window = [ceil(pool_scale * side) for side in features_NCHW.shape[-2:]]
    regions_NCM = F.max_pool2d(features_NCHW, window, stride=window, ceil_mode=True).flatten(2)
    norms_N1M = regions_NCM.detach().norm(dim=1, keepdim=True)
    units_NCM = regions_NCM / (norms_N1M + _TINY)
    cosines_NMM: Tensor = units_NCM.mT @ units_NCM
    return cosines_NMM
