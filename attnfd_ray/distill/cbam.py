"""Attention gates: the Convolutional Block Attention Module (Woo et al., ECCV 2018, Eq. 1-3) and
its simpler kin.

A gate maps features_NCHW to features_NCHW: it multiplies them by masks in (0, 1), of channels, of
pixels or of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Part = Literal["channel", "spatial"]
Pooling = Literal["both", "avg", "max"]


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a gate is built: parts in order, channels / hidden channels, side of the convolution,
    what it looks at.
    """

    parts: tuple[Part, ...] = ("channel", "spatial")
    reduction_ratio: int = 16
    kernel: int = 7
    pooling: Pooling = "both"


class ChannelGate(nn.Module):
    """M_c(F) = sigmoid(MLP(maxpool F) + MLP(avgpool F)), one MLP C -> C/r -> C with ReLU for both,
    or one pooling.
    """

    def __init__(self, channels: int, form: Form) -> None:
        super().__init__()
        self.pooling: Pooling = form.pooling
        hidden = max(1, channels // form.reduction_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def forward(self, features_NCHW: Tensor) -> Tensor:
        pooled = [
            self.mlp(pooled_NC11.flatten(1))
            for pooled_NC11 in _pooled(features_NCHW, "channel", self.pooling)
        ]
        return features_NCHW * torch.sigmoid(sum(pooled[1:], pooled[0]))[:, :, None, None]


class SpatialGate(nn.Module):
    """M_s(F) = sigmoid(BN(conv([max_c F; mean_c F]))), 2 -> 1 channel without bias; of one map, 1
    -> 1.

    With `frozen_statistics` BatchNorm normalises by the batch but keeps no running statistics: a
    gate that must not move has nothing to move.
    """

    def __init__(self, form: Form, frozen_statistics: bool = False) -> None:
        super().__init__()
        self.pooling: Pooling = form.pooling
        maps = 2 if form.pooling == "both" else 1
        self.conv = nn.Conv2d(
            maps, 1, kernel_size=form.kernel, padding=form.kernel // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(1, momentum=0.01, track_running_stats=not frozen_statistics)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        maps_NMHW = torch.cat(_pooled(features_NCHW, "spatial", self.pooling), dim=1)
        return features_NCHW * torch.sigmoid(self.bn(self.conv(maps_NMHW)))


class CBAM(nn.Sequential):
    """F' = M_c(F) F, then F'' = M_s(F') F'; with `form.parts` in the other order, or only one of
    them.
    """

    def __init__(self, channels: int, form: Form, *, frozen_statistics: bool = False) -> None:
        super().__init__()
        for part in form.parts:
            gate = (
                ChannelGate(channels, form)
                if part == "channel"
                else SpatialGate(form, frozen_statistics)
            )
            self.add_module(part, gate)


class ParameterFreeGate(nn.Module):
    """CBAM with nothing to learn: M_c = sigmoid(maxpool + avgpool), M_s = sigmoid(max_c +
    mean_c).
    """

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form

    def forward(self, features_NCHW: Tensor) -> Tensor:
        for part in self.form.parts:
            pooled = _pooled(features_NCHW, part, self.form.pooling)
            features_NCHW = features_NCHW * torch.sigmoid(sum(pooled[1:], pooled[0]))
        return features_NCHW


class FrozenGate(nn.Module):
    """A gate of the teacher: it answers, carries no gradient and never moves, whatever mode its
    parent is put in.
    """

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenGate:
        return super().train(False)

    @torch.no_grad()
    def forward(self, features_NCHW: Tensor) -> Tensor:
        refined: Tensor = self.gate(
            features_NCHW.detach()
        )  # a gate that does nothing hands back what it got
        return refined


def _pooled(features_NCHW: Tensor, part: Part, pooling: Pooling) -> list[Tensor]:
    """Return the largest and the mean value, or one of them, of each channel as NC11 or of each
    pixel as N1HW.
    """
    dims = (2, 3) if part == "channel" else (1,)
    largest = [features_NCHW.amax(dim=dims, keepdim=True)] if pooling != "avg" else []
    return largest + ([features_NCHW.mean(dim=dims, keepdim=True)] if pooling != "max" else [])
