"""DIST: the student's predictions correlate with the teacher's (Huang et al., NeurIPS 2022, arXiv
2205.10536).

With Y = softmax(logits / T), one row a pixel and one column a class, and r Pearson's correlation,
the loss added to the cross-entropy is

    loss_weight * T^2 * (inter_weight * mean over rows of (1 - r) + intra_weight * mean over columns of (1 - r))
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from attnfd_ray.config.types import AboveZero, LossWeight
from attnfd_ray.distill.features import in_full_precision
from attnfd_ray.distill.layerwise import LogitMethod, LogitSettings

_EPS = 1e-8  # added to the product of two norms, as published


class DIST(LogitMethod):
    """Distillation of relations between classes (rows) and within classes (columns).

    A column runs over all pixels of the batch, so its correlation is no mean over images and the
    cut matters.
    """

    depends_on_batch = True

    class Settings(LogitSettings):
        """`method: {name: dist, ...}`."""

        name: Literal["dist"] = "dist"
        temperature: Annotated[
            AboveZero, Field(description="1 in the paper's segmentation experiments")
        ] = 1.0
        inter_weight: Annotated[float, Field(ge=0, description="beta, 1 in the paper")] = 1.0
        intra_weight: Annotated[float, Field(ge=0, description="gamma, 1 in the paper")] = 1.0
        loss_weight: Annotated[
            LossWeight, Field(description="1 in the paper's segmentation experiments")
        ] = 1.0

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        settings = self.settings
        return relation_distance(
            student_NCHW,
            teacher_NCHW,
            temperature=settings.temperature,
            inter_weight=settings.inter_weight,
            intra_weight=settings.intra_weight,
        )


@in_full_precision
def relation_distance(
    student_NCHW: Tensor,
    teacher_NCHW: Tensor,
    *,
    temperature: float,
    inter_weight: float,
    intra_weight: float,
) -> Tensor:
    """Return T^2 * (inter_weight * mean of 1 - r over pixels + intra_weight * mean of 1 - r over
    classes).
    """
    student_PC, teacher_PC = (
        torch.softmax(side / temperature, dim=1).movedim(1, -1).flatten(0, -2)
        for side in (student_NCHW, teacher_NCHW)
    )
    inter, intra = (decorrelation(student_PC, teacher_PC, dim=dim) for dim in (1, 0))
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def decorrelation(student: Tensor, teacher: Tensor, *, dim: int) -> Tensor:
    """Return the mean of 1 - r along `dim`, in [0, 2]; a positive affine map of either side changes
    nothing.
    """
    student, teacher = (side - side.mean(dim=dim, keepdim=True) for side in (student, teacher))
    covariance = (student * teacher).sum(dim)
    norms: Tensor = torch.linalg.vector_norm(student, dim=dim) * torch.linalg.vector_norm(
        teacher, dim=dim
    )
    return (1 - covariance / (norms + _EPS)).mean()
