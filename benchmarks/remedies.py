"""Other ways to scale features than `norm: batch`, for the comparison in why_attnfd.md.

They are not part of the package. `method: {name: "benchmarks.remedies:FlooredNorm"}` and the like
need the project's directory on PYTHONPATH.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from attnfd_ray.distill.attnfd import AttnFD
from attnfd_ray.distill.batch_sums import batch_sum
from attnfd_ray.distill.features import TapModuleDict, in_full_precision
from attnfd_ray.distill.method import Networks

_TINY = 1e-12
_MOMENTUM = 0.1  # as BatchNorm's


class FlooredNorm(AttnFD):
    """The norm of each image, but at least `floor` x the root mean square of the batch's norms."""

    class Settings(AttnFD.Settings):
        """`method: {name: "benchmarks.remedies:FlooredNorm", ...}`."""

        name: str = "benchmarks.remedies:FlooredNorm"  # type: ignore[assignment]
        floor: Annotated[
            float, Field(gt=0, description="of the root mean square of the batch's image norms")
        ] = 0.5

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return floored_distance(student_NCHW, teacher_NCHW, floor=self.settings.floor)


@in_full_precision
def floored_distance(student_NCHW: Tensor, teacher_NCHW: Tensor, *, floor: float) -> Tensor:
    """Return the mean over images of || S/max(|S|, floor * rms) - T/max(|T|, floor * rms) ||^2."""
    difference_ND = _scaled(student_NCHW, floor) - _scaled(teacher_NCHW, floor)
    return difference_ND.square().sum(dim=1).mean()


def _scaled(features_NCHW: Tensor, floor: float) -> Tensor:
    """Return the features of each image, flattened, over max(|F|, floor * rms)."""
    flat_ND = features_NCHW.flatten(1)
    norms_N = torch.linalg.vector_norm(flat_ND, dim=1)
    num_images = norms_N.new_tensor(len(norms_N))
    energy, num_images = batch_sum(torch.stack([norms_N.square().sum(), num_images]))
    least = floor * (energy / num_images).clamp(min=_TINY**2).sqrt()
    return flat_ND / torch.maximum(norms_N, least)[:, None]


class RunningNorm(AttnFD):
    """Features divided by a running root mean square of image norms, which carries no gradient."""

    class Settings(AttnFD.Settings):
        """`method: {name: "benchmarks.remedies:RunningNorm", ...}`."""

        name: str = "benchmarks.remedies:RunningNorm"  # type: ignore[assignment]

    def __init__(self, settings: Settings, networks: Networks) -> None:
        super().__init__(settings, networks)
        self.running = TapModuleDict({layer: _RunningScales() for layer in settings.layers})

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        self._layers = iter(self.settings.layers)
        return super().forward(student, teacher, labels_NHW)

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        scales_2: Tensor = self.running[next(self._layers)](student_NCHW, teacher_NCHW)
        return running_distance(student_NCHW, teacher_NCHW, scales_2.sqrt())


class _RunningScales(torch.nn.Module):
    """Running means of |S|^2 and |T|^2 over images, [2]."""

    scales_2: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scales_2", torch.zeros(2))

    @torch.no_grad()
    def forward(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        student_2 = student_NCHW.float().square().sum()
        teacher_2 = teacher_NCHW.float().square().sum()
        num_images = student_2.new_tensor(len(student_NCHW))
        sums = batch_sum(torch.stack([student_2, teacher_2, num_images]))
        now_2 = (sums[:2] / sums[2]).clamp(min=_TINY)
        if self.training:
            averaged_2 = self.scales_2.lerp(now_2, _MOMENTUM)
            self.scales_2.copy_(torch.where(self.scales_2 > 0, averaged_2, now_2))
        if (self.scales_2 > 0).all():
            return self.scales_2
        return now_2


@in_full_precision
def running_distance(student_NCHW: Tensor, teacher_NCHW: Tensor, scales: Tensor) -> Tensor:
    """Return the mean over images of || S/scales[0] - T/scales[1] ||^2."""
    difference = student_NCHW / scales[0] - teacher_NCHW / scales[1]
    return difference.flatten(1).square().sum(dim=1).mean()


class DecayingWeight(AttnFD):
    """AttnFD whose weight falls linearly from `loss_weight` to 0 after `decay_epochs`."""

    class Settings(AttnFD.Settings):
        """`method: {name: "benchmarks.remedies:DecayingWeight", ...}`."""

        name: str = "benchmarks.remedies:DecayingWeight"  # type: ignore[assignment]
        decay_epochs: Annotated[int, Field(ge=1, description="epochs until the weight is 0")]

    factor = 1.0

    def frozen_prefixes(self, epoch: int) -> tuple[str, ...]:
        """Set the weight of `epoch` (from 1): the training loop calls this before each epoch."""
        self.factor = max(0.0, 1 - (epoch - 1) / self.settings.decay_epochs)
        return super().frozen_prefixes(epoch)

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return self.factor * super().distance(student_NCHW, teacher_NCHW)
