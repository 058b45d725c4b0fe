"""Structured knowledge distillation: regions relate to one another as in the teacher (Liu et al.,
CVPR 2019).

Only the pair-wise part: the pixel-wise part is the method `kd`, and the adversarial part is left
out.
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
    """Pair-wise similarity distillation; nothing beside the student learns."""

    class Settings(LayerSettings):
        """`method: {name: skd, ...}`."""

        name: Literal["skd"] = "skd"
        layers: Layers = ["decoder"]
        pool_scale: Annotated[
            float,
            Field(
                gt=0,
                le=1,
                description="side of a region / side of the map; 0.5, the original's, is 2 x 2",
            ),
        ] = 0.5
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="1 in the original; 10 in CIRKD's experiments (CVPR 2022), with "
                "regions of 2 x 2 pixels"
            ),
        ] = 1.0

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return pairwise_distance(student_NCHW, teacher_NCHW, pool_scale=self.settings.pool_scale)


@in_full_precision
def pairwise_distance(student_NCHW: Tensor, teacher_NCHW: Tensor, *, pool_scale: float) -> Tensor:
    """Return sum over region pairs of (a^s - a^t)^2 / M^2 as a mean over images, in [0, 4].

    a is the cosine of two of the M regions' features; scaling either side by a positive number
    changes nothing.
    """
    return (
        (similarities(student_NCHW, pool_scale) - similarities(teacher_NCHW, pool_scale))
        .square()
        .mean()
    )


def similarities(features_NCHW: Tensor, pool_scale: float) -> Tensor:
    """Return cosines_NMM of the max-pooled regions.

    A region's side is rounded up, so that a scale of 1/2 makes 2 x 2 regions of odd sides too; the
    original rounds down, which leaves a strip one pixel wide. No gradient goes through a region's
    norm, as in the original.
    """
    window = [ceil(pool_scale * side) for side in features_NCHW.shape[-2:]]
    regions_NCM = F.max_pool2d(features_NCHW, window, stride=window, ceil_mode=True).flatten(2)
    units_NCM = regions_NCM / (regions_NCM.detach().norm(dim=1, keepdim=True) + _TINY)
    cosines_NMM: Tensor = units_NCM.mT @ units_NCM
    return cosines_NMM
