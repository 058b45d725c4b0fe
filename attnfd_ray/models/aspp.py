"""Atrous spatial pyramid pooling (ASPP), with the tensor names of the released AttnFD code.

Source: DeepLabV3+, Chen et al., ECCV 2018. One feature is convolved at four dilations, and joined
with its mean over the image.
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
        size, padding = 3, rate
        if rate == 1:
            size, padding = 1, 0
        self.atrous_conv = nn.Conv2d(
            in_channels, out_channels, size, padding=padding, dilation=rate, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Return features of the same height and width."""
        return F.relu(self.bn(self.atrous_conv(features_NCHW)))


class ASPP(nn.Module):
    """Four atrous branches and the image's mean, joined and projected.

    In train mode a batch needs two images or more. The pooled branch has one value per channel and
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
        """Return features of the same height and width with `out_channels` channels."""
        size = features_NCHW.shape[-2:]
        pooled_NC11 = self.global_avg_pool(features_NCHW)
        outputs = [
            self.aspp1(features_NCHW),
            self.aspp2(features_NCHW),
            self.aspp3(features_NCHW),
            self.aspp4(features_NCHW),
            # up-sampling a single pixel with aligned corners repeats it
            pooled_NC11.expand(-1, -1, *size),
        ]
        joined = self.conv1(torch.cat(outputs, dim=1))
        out: Tensor = self.dropout(self.relu(self.bn1(joined)))
        return out
