"""AttnFD: the student's attention-refined features follow the teacher's (arXiv 2403.05451, Sec. 3.3).

With S = connector(gate_s(student)), T = gate_t(teacher) at each layer, the loss added to the cross-entropy is

    loss_weight * sum over layers of mean over images of || S/|S| - T/|T| ||^2

where |.| is the Frobenius norm of one image's features. `norm: batch` is the released form instead: |.| is the norm of
the whole batch's tensor, the sum is divided by the number of images, and the teacher's gate normalises by the batch.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.config.schema import MethodSettings
from attnfd_ray.distill import gates
from attnfd_ray.distill.method import Method, Networks

_TINY = 1e-12  # keeps an all-zero map from dividing by zero; far below any norm that is met


class AttnFD(Method):
    """Attention-guided feature distillation."""

    class Settings(MethodSettings):
        """`method: {name: attnfd, ...}`."""

        name: Literal["attnfd"] = "attnfd"
        layers: Annotated[list[str], Field(min_length=1)] = ["stage4", "aspp", "decoder"]
        reduction_ratio: Annotated[int, Field(ge=1, description="channels / hidden channels of a channel gate")] = 16
        loss_weight: Annotated[float, Field(ge=0, description="0 is the plain student")] = 2.0
        norm: Literal["image", "batch"] = "image"
        student_gate: Literal["learned", "parameter_free", "identity"] = "learned"
        teacher_gate: Literal["parameter_free", "random_frozen", "from_checkpoint", "identity"] = "parameter_free"
        teacher_gate_seed: Annotated[int, Field(ge=0, description="of random_frozen")] = 0

        @field_validator("layers")
        @classmethod
        def _once(cls, layers: list[str]) -> list[str]:
            if len(set(layers)) != len(layers):
                raise ValueError(f"a layer stands there twice in {layers}")
            return layers

    def __init__(self, settings: Settings, networks: Networks) -> None:
        super().__init__()
        self.settings = settings
        self.student_gates = nn.ModuleDict()
        self.teacher_gates = nn.ModuleDict()
        self.connectors = nn.ModuleDict()
        for layer in settings.layers:
            narrow, wide = networks.student_channels[layer], networks.teacher_channels[layer]
            self.student_gates[layer] = gates.student_gate(settings.student_gate, narrow, settings.reduction_ratio)
            self.teacher_gates[layer] = gates.teacher_gate(
                settings.teacher_gate,
                wide,
                layer=layer,
                reduction_ratio=settings.reduction_ratio,
                seed=settings.teacher_gate_seed,
                teacher_file=networks.teacher_file,
                batch_statistics=settings.norm == "batch",
            )
            self.connectors[layer] = connector(narrow, wide)

    @classmethod
    def taps(cls, settings: Settings) -> tuple[str, ...]:
        """Return the layers that are compared."""
        return tuple(settings.layers)

    def forward(self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor) -> dict[str, Tensor]:
        terms = {}
        for layer in self.settings.layers:
            target = self.teacher_gates[layer](teacher[layer])
            guess = self.connectors[layer](self.student_gates[layer](student[layer]))
            if guess.shape[-2:] != target.shape[-2:]:
                guess = F.interpolate(guess, size=target.shape[-2:], mode="bilinear", align_corners=False)
            distance = normalised_distance(guess, target, norm=self.settings.norm)
            terms[f"attnfd/{layer}"] = self.settings.loss_weight * distance
        return terms


def connector(student_channels: int, teacher_channels: int) -> nn.Sequential:
    """Return a 1x1 convolution with BatchNorm that brings the student's channels to the teacher's."""
    conv = nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False)
    nn.init.normal_(conv.weight, std=(2.0 / teacher_channels) ** 0.5)
    return nn.Sequential(conv, nn.BatchNorm2d(teacher_channels))


def normalised_distance(student_NCHW: Tensor, teacher_NCHW: Tensor, *, norm: Literal["image", "batch"]) -> Tensor:
    """Return || S/|S| - T/|T| ||^2 as a mean over images, in [0, 4]; scaling either side changes nothing.

    Computed in fp32 at least: squares of half-precision features overflow.
    """
    num_images = len(student_NCHW)
    with torch.autocast(student_NCHW.device.type, enabled=False):
        rows = (num_images, -1) if norm == "image" else (1, -1)
        student, teacher = (_at_least_fp32(side).reshape(rows) for side in (student_NCHW, teacher_NCHW))
        unit_student, unit_teacher = F.normalize(student, dim=1, eps=_TINY), F.normalize(teacher, dim=1, eps=_TINY)
        return (unit_student - unit_teacher).square().sum() / num_images


def _at_least_fp32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
