"""KD: at every pixel the student's class probabilities follow the teacher's.

Source: Hinton et al., 2015, arXiv 1503.02531. With p = softmax(logits / T) at a pixel, the loss
added to the cross-entropy is

    loss_weight * T^2 * mean over pixels and images of KL(p_teacher || p_student)
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from attnfd_ray.config.types import AboveZero, LossWeight
from attnfd_ray.distill.features import in_full_precision
from attnfd_ray.distill.layerwise import LogitMethod, LogitSettings


class KD(LogitMethod):
    """Knowledge distillation, pixel by pixel."""

    class Settings(LogitSettings):
        """`method: {name: kd, ...}`."""

        name: Literal["kd"] = "kd"
        temperature: Annotated[
            AboveZero,
            Field(
                description="The temperature of the class probabilities (1 in CIRKD's experiments, "
                "CVPR 2022)."
            ),
        ] = 1.0
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss term; 0 trains the student without distillation (1 "
                "in CIRKD's experiments, CVPR 2022)."
            ),
        ] = 1.0

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return softened_divergence(
            student_NCHW, teacher_NCHW, dim=1, temperature=self.settings.temperature
        )


@in_full_precision
def softened_divergence(
    student: Tensor, teacher: Tensor, *, dim: int, temperature: float
) -> Tensor:
    """Return T^2 * KL(softmax(teacher/T) || softmax(student/T)) over `dim`, a scalar >= 0.

    It is a mean over the other axes. Adding a constant along `dim` to either side changes nothing.
    """
    log_student = F.log_softmax(student / temperature, dim=dim)
    log_teacher = F.log_softmax(teacher / temperature, dim=dim)
    divergence = F.kl_div(log_student, log_teacher, log_target=True, reduction="none").sum(dim)
    return temperature**2 * divergence.mean()
