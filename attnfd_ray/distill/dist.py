"""DIST: the student's predictions correlate with the teacher's.

Source: Huang et al., NeurIPS 2022, arXiv 2205.10536. Let Y = softmax(logits / T), with one row a
pixel and one column a class, and let r be Pearson's correlation. With

    inter = mean over rows of (1 - r)
    intra = mean over columns of (1 - r)

the loss added to the cross-entropy is

    loss_weight * T^2 * (inter_weight * inter + intra_weight * intra)
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

    A column runs over all pixels of the batch. Its correlation is no mean over images, so the
    method sets `depends_on_batch`.
    """

    depends_on_batch = True

    class Settings(LogitSettings):
        """`method: {name: dist, ...}`."""

        name: Literal["dist"] = "dist"
        temperature: Annotated[
            AboveZero,
            Field(
                description="The temperature of the class probabilities (1 in the paper's "
                "segmentation experiments)."
            ),
        ] = 1.0
        inter_weight: Annotated[
            float,
            Field(
                ge=0,
                description="Factor on the part that compares the classes at each pixel (beta, 1 "
                "in the paper).",
            ),
        ] = 1.0
        intra_weight: Annotated[
            float,
            Field(
                ge=0,
                description="Factor on the part that compares the pixels of each class (gamma, 1 "
                "in the paper).",
            ),
        ] = 1.0
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss term; 0 trains the student without distillation (1 "
                "in the paper's segmentation experiments)."
            ),
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
    """Return T^2 * (inter_weight * inter + intra_weight * intra) for logits, a scalar >= 0."""
    student_PC = _probabilities(student_NCHW, temperature)
    teacher_PC = _probabilities(teacher_NCHW, temperature)
    inter = decorrelation(student_PC, teacher_PC, dim=1)
    intra = decorrelation(student_PC, teacher_PC, dim=0)
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def _probabilities(logits_NCHW: Tensor, temperature: float) -> Tensor:
    """Return Y, [pixels of all images, classes]."""
    probabilities_NCHW = torch.softmax(logits_NCHW / temperature, dim=1)
    return probabilities_NCHW.movedim(1, -1).flatten(0, -2)


def decorrelation(student: Tensor, teacher: Tensor, *, dim: int) -> Tensor:
    """Return the mean of 1 - r along `dim`, in [0, 2].

    It is invariant to a positive affine map of either side.
    """
    student = student - student.mean(dim=dim, keepdim=True)
    teacher = teacher - teacher.mean(dim=dim, keepdim=True)
    covariance = (student * teacher).sum(dim)
    student_norm = torch.linalg.vector_norm(student, dim=dim)
    teacher_norm = torch.linalg.vector_norm(teacher, dim=dim)
    correlation: Tensor = covariance / (student_norm * teacher_norm + _EPS)
    return (1 - correlation).mean()
