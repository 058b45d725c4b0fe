"""AttnFD: the student's attention-refined features follow the teacher's (arXiv 2403.05451, Sec. 3.3).

With S = connector(gate_s(student)), T = gate_t(teacher) at each layer, the loss added to the cross-entropy is

    loss_weight * sum over layers of mean over images of || S/|S| - T/|T| ||^2

where |.| is the Frobenius norm of one image's features. `norm: batch` is the released form instead: |.| is the norm of
the whole batch's tensor, the sum is divided by the number of images, and the teacher's gate normalises by the batch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.config.schema import MethodSettings
from attnfd_ray.distill import gates
from attnfd_ray.distill.features import connector, in_full_precision, resized
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
            distance = normalised_distance(resized(guess, target), target, norm=self.settings.norm)
            terms[f"attnfd/{layer}"] = self.settings.loss_weight * distance
        return terms


@in_full_precision
def normalised_distance(student_NCHW: Tensor, teacher_NCHW: Tensor, *, norm: Literal["image", "batch"]) -> Tensor:
    """Return || S/|S| - T/|T| ||^2 as a mean over images, in [0, 4]; scaling either side changes nothing."""
    num_images = len(student_NCHW)
    rows = (num_images, -1) if norm == "image" else (1, -1)
    unit_student, unit_teacher = (
        F.normalize(side.reshape(rows), dim=1, eps=_TINY) for side in (student_NCHW, teacher_NCHW)
    )
    return (unit_student - unit_teacher).square().sum() / num_images
