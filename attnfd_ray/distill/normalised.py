"""The distance of AttnFD, LAD, PAD and CAD: || S/|S| - T/|T| ||^2 with one of three norms."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from attnfd_ray.distill.batch_sums import batch_sum
from attnfd_ray.distill.features import in_full_precision

Normalisation = Literal["image", "batch", "pixel"]

_TINY = 1e-12  # avoids a division by zero for a map of zeros; far below any norm that occurs


@in_full_precision
def normalised_distance(
    student_NCHW: Tensor, teacher_NCHW: Tensor, *, norm: Normalisation, squared: bool = True
) -> Tensor:
    """Return || S/|S| - T/|T| ||^2, a scalar in [0, 4].

    `norm: batch` normalises the features of the global batch (see `batch_sums`). `image` and
    `pixel` normalise each image, or the channel vector of each pixel, and return the mean over
    images, or over pixels. Without `squared` each distance is || S/|S| - T/|T| ||, in [0, 2].
    The result is invariant to scaling either side by a positive number.

    >>> student_NCHW = torch.tensor([[[[3.0]], [[4.0]]]])
    >>> normalised_distance(student_NCHW, 7 * student_NCHW, norm="image").item()
    0.0
    >>> normalised_distance(student_NCHW, -student_NCHW, norm="batch").item()
    4.0
    """
    if norm == "batch":
        return _batch_distance(student_NCHW, teacher_NCHW, squared=squared)
    if norm == "image":
        student_NCHW = student_NCHW.flatten(1)
        teacher_NCHW = teacher_NCHW.flatten(1)
    difference = F.normalize(student_NCHW, eps=_TINY) - F.normalize(teacher_NCHW, eps=_TINY)
    if squared:
        return difference.square().sum(dim=1).mean()
    # vector_norm has a gradient at 0, a square root has none
    distance: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return distance.mean()


def _batch_distance(student_NCHW: Tensor, teacher_NCHW: Tensor, *, squared: bool) -> Tensor:
    """Return the distance of the global batch from three sums over it: S.S, T.T and S.T."""
    products = torch.stack(
        [
            _dot(student_NCHW, student_NCHW),
            _dot(teacher_NCHW, teacher_NCHW),
            _dot(student_NCHW, teacher_NCHW),
        ]
    )
    student_2, teacher_2, product = batch_sum(products)
    tiny_2 = _TINY**2
    student_norm = student_2.clamp(min=tiny_2).sqrt()
    teacher_norm = teacher_2.clamp(min=tiny_2).sqrt()
    # the first two quotients are 1, or 0 for features that are all zero
    distance_2: Tensor = (
        student_2 / student_norm**2
        + teacher_2 / teacher_norm**2
        - 2 * product / (student_norm * teacher_norm)
    ).clamp(min=0)
    if not squared:  # the square root has no gradient at 0
        distance_2 = torch.where(distance_2 > 0, distance_2.clamp(min=tiny_2).sqrt(), 0.0)
    return distance_2.to(student_NCHW.dtype)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return the sum of products in float64.

    For nearly parallel features 2 - 2 cos is a small difference of large sums.
    """
    return (one * other).sum(dtype=torch.float64)
