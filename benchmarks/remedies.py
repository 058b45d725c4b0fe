"""Other ways to scale features than `norm: batch`, for the comparison in why_attnfd.md. Not part of
the package.

`method: {name: "benchmarks.remedies:FlooredNorm"}` and the like, with the project's directory on
PYTHONPATH.
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
    """A norm an image, but at least `floor` times the root mean square of the batch's image
    norms.
    """

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

    def scaled(side_NCHW: Tensor) -> Tensor:
        flat_ND = side_NCHW.flatten(1)
        norms_N = torch.linalg.vector_norm(flat_ND, dim=1)
        energy = batch_sum(torch.stack([norms_N.square().sum(), norms_N.new_tensor(len(norms_N))]))
        least = floor * (energy[0] / energy[1]).clamp(min=_TINY**2).sqrt()
        return flat_ND / torch.maximum(norms_N, least)[:, None]

    return (scaled(student_NCHW) - scaled(teacher_NCHW)).square().sum(dim=1).mean()


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
        sides = (student_NCHW.float(), teacher_NCHW.float())
        sums = batch_sum(
            torch.stack(
                [*(side.square().sum() for side in sides), sides[0].new_tensor(len(sides[0]))]
            )
        )
        now = (sums[:2] / sums[2]).clamp(min=_TINY)
        if self.training:
            self.scales_2.copy_(
                torch.where(self.scales_2 > 0, self.scales_2.lerp(now, _MOMENTUM), now)
            )
        return self.scales_2 if (self.scales_2 > 0).all() else now


@in_full_precision
def running_distance(student_NCHW: Tensor, teacher_NCHW: Tensor, scales: Tensor) -> Tensor:
    """Return the mean over images of || S/scales[0] - T/scales[1] ||^2."""
    difference = student_NCHW / scales[0] - teacher_NCHW / scales[1]
    return difference.flatten(1).square().sum(dim=1).mean()


class DecayingWeight(AttnFD):
    """AttnFD whose weight falls linearly, epoch by epoch, from `loss_weight` to 0 after
    `decay_epochs`.
    """

    class Settings(AttnFD.Settings):
        """`method: {name: "benchmarks.remedies:DecayingWeight", ...}`."""

        name: str = "benchmarks.remedies:DecayingWeight"  # type: ignore[assignment]
        decay_epochs: Annotated[int, Field(ge=1, description="epochs until the weight is 0")]

    factor = 1.0

    def frozen_prefixes(self, epoch: int) -> tuple[str, ...]:
        """Set the weight of `epoch` (from 1), which the training loop announces here."""
        self.factor = max(0.0, 1 - (epoch - 1) / self.settings.decay_epochs)
        return super().frozen_prefixes(epoch)

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        return self.factor * super().distance(student_NCHW, teacher_NCHW)
