"""The decoder of DeepLabV3+, with the tensor names of the released AttnFD code.

It joins the pyramid's output with low-level features and classifies every pixel at stride 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.models.layers import scaled


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)


class Decoder(nn.Module):
    """Joins [pyramid, reduced low level] at stride 4; two 3x3 convolutions, a 1x1 classifier."""

    def __init__(
        self, in_channels: int, low_channels: int, *, width: float, num_classes: int
    ) -> None:
        super().__init__()
        reduced = scaled(48, width)
        self.channels = scaled(256, width)
        self.conv1 = nn.Conv2d(low_channels, reduced, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(reduced)
        self.last_conv = nn.Sequential(
            _conv3x3(in_channels + reduced, self.channels),
            nn.BatchNorm2d(self.channels),
            nn.ReLU(),
            nn.Dropout(0.5),
            _conv3x3(self.channels, self.channels),
            nn.BatchNorm2d(self.channels),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(self.channels, num_classes, 1),
        )

    def forward(self, pyramid_NCHW: Tensor, low_level_NCHW: Tensor) -> Tensor:
        """Return logits at the height and width of the low-level features."""
        low_level = F.relu(self.bn1(self.conv1(low_level_NCHW)))
        size = low_level.shape[-2:]
        pyramid = F.interpolate(pyramid_NCHW, size=size, mode="bilinear", align_corners=True)
        logits: Tensor = self.last_conv(torch.cat([pyramid, low_level], dim=1))
        return logits
