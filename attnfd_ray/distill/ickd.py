"""ICKD: channels correlate with one another as in the teacher.

Source: inter-channel correlation for knowledge distillation, Liu et al., ICCV 2021. Let F be
connector(student) or the teacher's features as a matrix of D channels by N pixels. G = F F^T holds
the correlation of each channel with each other. For segmentation the paper takes G of each patch of
a grid, which keeps spatial information.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from attnfd_ray.config.types import Layers, LossWeight, Positive
from attnfd_ray.distill import features
from attnfd_ray.distill.features import in_full_precision
from attnfd_ray.distill.layerwise import LayerSettings, LayerwiseMethod
from attnfd_ray.errors import ConfigError

_TINY = 1e-8  # avoids a division by zero for a channel that is all zero


class ICKD(LayerwiseMethod):
    """Inter-channel correlation distillation."""

    class Settings(LayerSettings):
        """`method: {name: ickd, ...}`."""

        name: Literal["ickd"] = "ickd"
        layers: Layers = ["decoder"]
        grid: Annotated[
            tuple[Positive, Positive],
            Field(
                description="The number of patches down and across; channels are correlated within "
                "each patch. It takes memory for patches x channels^2 numbers (the paper's best on "
                "VOC is 32, 32)."
            ),
        ] = (1, 1)
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss terms; 0 trains the student without distillation. "
                "Begin with 1 to 10 (none was published for segmentation)."
            ),
        ] = 1.0

    def connector(self, student_channels: int, teacher_channels: int) -> nn.Module:
        """Return a 1x1 convolution with BatchNorm."""
        return features.connector(student_channels, teacher_channels)

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        """Raise ConfigError where the grid has more patches than there are pixels."""
        down, across = self.settings.grid
        height, width = teacher_NCHW.shape[-2:]
        if down > height or across > width:
            raise ConfigError(
                f"method.grid: [{down}, {across}] patches of a feature of {height} x {width} "
                "pixels; needs a pixel a patch: lower method.grid or raise data.crop"
            )
        return correlation_distance(student_NCHW, teacher_NCHW, grid=self.settings.grid)


@in_full_precision
def correlation_distance(
    student_NCHW: Tensor, teacher_NCHW: Tensor, *, grid: tuple[int, int]
) -> Tensor:
    """Return || G^s - G^t ||^2 / D, with rows of G normalised, a mean over patches and images.

    It is in [0, 4] and invariant to scaling either side.
    """
    difference = correlations(student_NCHW, grid) - correlations(teacher_NCHW, grid)
    return difference.square().sum(dim=-1).mean()


def correlations(features_NCHW: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return G, [images, patches down, patches across, D, D], each row of length 1.

    Where a side cannot be divided evenly, patches differ by a pixel. The smaller ones are padded
    with zeros, which add nothing to G.
    """
    down, across = grid
    rows = list(features_NCHW.movedim(2, 0).tensor_split(down))
    rows_MHNCW = pad_sequence(rows, batch_first=True)
    columns = list(rows_MHNCW.movedim(4, 0).tensor_split(across))
    patches = pad_sequence(columns, batch_first=True)
    channels_by_pixels = patches.permute(4, 2, 0, 5, 3, 1).flatten(4)
    return F.normalize(channels_by_pixels @ channels_by_pixels.mT, dim=-1, eps=_TINY)
