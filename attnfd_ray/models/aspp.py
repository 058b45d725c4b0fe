"""Atrous spatial pyramid pooling: the same feature seen at four dilations and as a whole. Names as
released.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RATES = {16: (1, 6, 12, 18), 8: (1, 12, 24, 36)}


class AtrousBranch(nn.Module):
    """Convolution (1x1 at rate 1, else 3x3 at that dilation), BatchNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, rate: int) -> None:
        super().__init__()
        size, padding = (1, 0) if rate == 1 else (3, rate)
        self.atrous_conv = nn.Conv2d(
            in_channels, out_channels, size, padding=padding, dilation=rate, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Return features of the same height and width."""
        return F.relu(self.bn(self.atrous_conv(features_NCHW)))


class ASPP(nn.Module):
    """Four atrous branches and the image's mean, joined and projected.

    In train mode a batch needs two images or more: the pooled branch has one value per channel and
    image, and BatchNorm has no variance of a single one.
    """

    def __init__(self, in_channels: int, out_channels: int, *, output_stride: int) -> None:
        super().__init__()
        branches = [
            AtrousBranch(in_channels, out_channels, rate=rate) for rate in RATES[output_stride]
        ]
        self.aspp1, self.aspp2, self.aspp3, self.aspp4 = branches
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )
        self.conv1 = nn.Conv2d(5 * out_channels, out_channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()  # a module, so that the tap has a path: after ReLU, before dropout
        self.dropout = nn.Dropout(0.5)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Return features of the same height and width, `out_channels` deep."""
        # up-sampling a single pixel with aligned corners is repeating it
        pooled = self.global_avg_pool(features_NCHW).expand(-1, -1, *features_NCHW.shape[-2:])
        branches = (self.aspp1, self.aspp2, self.aspp3, self.aspp4)
        joined = torch.cat([*(branch(features_NCHW) for branch in branches), pooled], dim=1)
        out: Tensor = self.dropout(self.relu(self.bn1(self.conv1(joined))))
        return out
