"""Attention gates: the Convolutional Block Attention Module (CBAM) and simpler variants.

Source: Woo et al., ECCV 2018, Eq. 1-3. A gate maps features_NCHW to features_NCHW: it multiplies
them by masks in (0, 1), one for channels, one for pixels, or both.
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
    """How a gate is built.

    `parts` are applied in their order. `reduction_ratio`, 1 or more, is channels / hidden channels
    of a channel gate. `kernel`, odd, is the side of a spatial gate's convolution in pixels.
    `pooling` is what both parts look at: maximum, mean, or both.
    """

    parts: tuple[Part, ...] = ("channel", "spatial")
    reduction_ratio: int = 16
    kernel: int = 7
    pooling: Pooling = "both"


class ChannelGate(nn.Module):
    """Multiplies each channel by one number in (0, 1); features_NCHW to features_NCHW.

    M_c(F) = sigmoid(MLP(maxpool F) + MLP(avgpool F)), Eq. 2, with one MLP C -> C/r -> C with ReLU
    for both poolings. With `form.pooling` avg or max there is only that term. The hidden layer has
    at least one channel.

    >>> gate = ChannelGate(64, Form(reduction_ratio=16))
    >>> gate.mlp[0].out_features
    4
    >>> gate(torch.ones(2, 64, 5, 6)).shape
    torch.Size([2, 64, 5, 6])
    """

    def __init__(self, channels: int, form: Form) -> None:
        super().__init__()
        self.pooling: Pooling = form.pooling
        hidden = max(1, channels // form.reduction_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def forward(self, features_NCHW: Tensor) -> Tensor:
        pooled = _pooled(features_NCHW, "channel", self.pooling)
        scores = [self.mlp(pooled_NC11.flatten(1)) for pooled_NC11 in pooled]
        mask_NC = torch.sigmoid(_added(scores))
        return features_NCHW * mask_NC[:, :, None, None]


class SpatialGate(nn.Module):
    """Multiplies each pixel by one number in (0, 1); features_NCHW to features_NCHW.

    M_s(F) = sigmoid(BN(conv([max_c F; mean_c F]))), Eq. 3, with a convolution 2 -> 1 without bias.
    With `form.pooling` avg or max it is 1 -> 1.

    With `frozen_statistics` BatchNorm normalises by the batch and keeps no running statistics. Then
    the gate has no buffer that could change.

    >>> gate = SpatialGate(Form(kernel=3, pooling="max"))
    >>> gate.conv.weight.shape
    torch.Size([1, 1, 3, 3])
    """

    def __init__(self, form: Form, frozen_statistics: bool = False) -> None:
        super().__init__()
        self.pooling: Pooling = form.pooling
        num_maps = {"both": 2, "avg": 1, "max": 1}[form.pooling]
        self.conv = nn.Conv2d(
            num_maps, 1, kernel_size=form.kernel, padding=form.kernel // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(1, momentum=0.01, track_running_stats=not frozen_statistics)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        maps_NMHW = torch.cat(_pooled(features_NCHW, "spatial", self.pooling), dim=1)
        return features_NCHW * torch.sigmoid(self.bn(self.conv(maps_NMHW)))


class CBAM(nn.Sequential):
    """The learned gate: F' = M_c(F) F, then F'' = M_s(F') F' (Eq. 1).

    Takes features_NCHW with C = `channels` and returns the same shape. `form.parts` gives the order
    of the two parts, only one of them, or none. The parts are the submodules `channel` and
    `spatial`, see `ChannelGate` and `SpatialGate`.

    >>> _ = torch.manual_seed(0)
    >>> gate = CBAM(8, Form(reduction_ratio=4))
    >>> [name for name, _ in gate.named_children()]
    ['channel', 'spatial']
    >>> features_NCHW = torch.randn(2, 8, 5, 6)
    >>> bool((gate(features_NCHW).abs() < features_NCHW.abs()).all())
    True
    """

    def __init__(self, channels: int, form: Form, *, frozen_statistics: bool = False) -> None:
        super().__init__()
        for part in form.parts:
            if part == "channel":
                self.add_module(part, ChannelGate(channels, form))
            else:
                self.add_module(part, SpatialGate(form, frozen_statistics))


class ParameterFreeGate(nn.Module):
    """CBAM without parameters: M_c = sigmoid(maxpool + avgpool), M_s = sigmoid(max_c + mean_c).

    Takes features_NCHW of any number of channels and returns the same shape. Parts and pooling are
    those of `form`; its other values have no effect.

    >>> features_NCHW = torch.zeros(1, 2, 3, 3)
    >>> ParameterFreeGate(Form())(features_NCHW).shape
    torch.Size([1, 2, 3, 3])
    >>> gate = ParameterFreeGate(Form(parts=("channel",), pooling="max"))
    >>> gate(torch.ones(1, 1, 1, 1)).item() == torch.sigmoid(torch.ones(())).item()
    True
    """

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form

    def forward(self, features_NCHW: Tensor) -> Tensor:
        for part in self.form.parts:
            pooled = _pooled(features_NCHW, part, self.form.pooling)
            features_NCHW = features_NCHW * torch.sigmoid(_added(pooled))
        return features_NCHW


class FrozenGate(nn.Module):
    """A gate of the teacher: its output has no gradient and nothing in it ever changes.

    `gate` maps features_NCHW to features_NCHW. It stays in eval mode whatever mode its parent is
    put in. None of its parameters requires a gradient.

    >>> frozen = FrozenGate(CBAM(8, Form())).train()
    >>> frozen.training, frozen(torch.ones(2, 8, 5, 6)).requires_grad
    (False, False)
    """

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenGate:
        return super().train(False)

    @torch.no_grad()
    def forward(self, features_NCHW: Tensor) -> Tensor:
        # detached, because an identity gate returns its input
        refined: Tensor = self.gate(features_NCHW.detach())
        return refined


def _pooled(features_NCHW: Tensor, part: Part, pooling: Pooling) -> list[Tensor]:
    """Return maximum and mean, or one of them: NC11 of each channel, or N1HW of each pixel."""
    dims = {"channel": (2, 3), "spatial": (1,)}[part]
    pooled = []
    if pooling != "avg":
        pooled.append(features_NCHW.amax(dim=dims, keepdim=True))
    if pooling != "max":
        pooled.append(features_NCHW.mean(dim=dims, keepdim=True))
    return pooled


def _added(tensors: list[Tensor]) -> Tensor:
    return sum(tensors[1:], tensors[0])
