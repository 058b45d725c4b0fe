"""Attention gates: the Convolutional Block Attention Module (Woo et al., ECCV 2018, Eq. 1-3) and its simpler kin.

A gate maps features_NCHW to features_NCHW: a channel mask is applied first, then a spatial mask, both in (0, 1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelGate(nn.Module):
    """M_c(F) = sigmoid(MLP(avgpool F) + MLP(maxpool F)), one MLP C -> C/r -> C with ReLU for both."""

    def __init__(self, channels: int, *, reduction_ratio: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction_ratio)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, features_NCHW: Tensor) -> Tensor:
        mean_NC, max_NC = features_NCHW.mean(dim=(2, 3)), features_NCHW.amax(dim=(2, 3))
        mask_NC = torch.sigmoid(self.mlp(mean_NC) + self.mlp(max_NC))
        return features_NCHW * mask_NC[:, :, None, None]


class SpatialGate(nn.Module):
    """M_s(F) = sigmoid(BN(conv7x7([max_c F; mean_c F]))), 2 -> 1 channel without bias.

    With `frozen_statistics` BatchNorm normalises by the batch but keeps no running statistics: a gate that must not
    move has nothing to move.
    """

    def __init__(self, *, frozen_statistics: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size=7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1, momentum=0.01, track_running_stats=not frozen_statistics)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        pooled_N2HW = torch.cat([features_NCHW.amax(dim=1, keepdim=True), features_NCHW.mean(dim=1, keepdim=True)], 1)
        return features_NCHW * torch.sigmoid(self.bn(self.conv(pooled_N2HW)))


class CBAM(nn.Module):
    """F' = M_c(F) F, then F'' = M_s(F') F'."""

    def __init__(self, channels: int, *, reduction_ratio: int, frozen_statistics: bool = False) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, reduction_ratio=reduction_ratio)
        self.spatial = SpatialGate(frozen_statistics=frozen_statistics)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        refined: Tensor = self.spatial(self.channel(features_NCHW))
        return refined


class ParameterFreeGate(nn.Module):
    """CBAM with nothing to learn: M_c = sigmoid(avgpool + maxpool), M_s = sigmoid(max_c + mean_c)."""

    def forward(self, features_NCHW: Tensor) -> Tensor:
        mask_NC11 = torch.sigmoid(
            F.adaptive_avg_pool2d(features_NCHW, 1) + features_NCHW.amax(dim=(2, 3), keepdim=True)
        )
        features_NCHW = features_NCHW * mask_NC11
        mask_N1HW = torch.sigmoid(features_NCHW.amax(dim=1, keepdim=True) + features_NCHW.mean(dim=1, keepdim=True))
        return features_NCHW * mask_N1HW


class FrozenGate(nn.Module):
    """A gate of the teacher: it answers, carries no gradient and never moves, whatever mode its parent is put in."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenGate:
        return super().train(False)

    @torch.no_grad()
    def forward(self, features_NCHW: Tensor) -> Tensor:
        refined: Tensor = self.gate(features_NCHW.detach())  # a gate that does nothing hands back what it got
        return refined
