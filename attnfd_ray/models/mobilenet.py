"""MobileNetV2 backbone with the tensor names of the released AttnFD code, without a head.

One difference to torchvision is kept, because released weights were trained with it. A block pads
its input *before* the 1x1 expansion, so the border that the depthwise convolution sees has passed
BatchNorm and ReLU6 and is not zero. torchvision pads the depthwise convolution. With equal weights
the two differ near the border.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.models.base import Backbone, Tap
from attnfd_ray.models.layers import scaled
from attnfd_ray.models.tensors import Tensors, in_order


class _Group(NamedTuple):
    """Blocks of equal channels; `stride` is of the first one."""

    expansion: int
    channels: int
    blocks: int
    stride: int


PLAN = (
    _Group(1, 16, 1, 1),
    _Group(6, 24, 2, 2),
    _Group(6, 32, 3, 2),
    _Group(6, 64, 4, 2),
    _Group(6, 96, 3, 1),
    _Group(6, 160, 3, 2),
    _Group(6, 320, 1, 1),
)
# the last block of 24, 32, 96 and 320 channels: strides 4, 8, 16 and 16 (output stride 16)
STAGES = {"stage1": 3, "stage2": 6, "stage3": 13, "stage4": 17}

_NESTED = re.compile(r"features\.\d+\.conv\.\d+\.\d+\.")  # as torchvision numbers a block's parts


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise and 1x1 linear projection; a shortcut where the shape stays."""

    def __init__(
        self, in_channels: int, out_channels: int, *, expansion: int, stride: int, dilation: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        expand: list[nn.Module] = []
        if expansion != 1:
            expand = [
                nn.Conv2d(in_channels, hidden, 1, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU6(),
            ]
        self.conv = nn.Sequential(
            *expand,
            nn.Conv2d(hidden, hidden, 3, stride, dilation=dilation, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.out_channels = out_channels
        self.padding = (dilation,) * 4
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Return the block's linear output: no activation follows the projection."""
        out: Tensor = self.conv(F.pad(features_NCHW, self.padding))
        if self.has_shortcut:
            return features_NCHW + out
        return out


def _blocks(in_channels: int, *, width: float, output_stride: int) -> list[InvertedResidual]:
    """Return the 17 blocks after the stem.

    Once the output stride is reached, the stride of a group becomes the dilation of the blocks
    after its first one.
    """
    blocks: list[InvertedResidual] = []
    reached = 2
    dilation = 1
    for group in PLAN:
        stride = group.stride
        next_dilation = dilation
        if reached == output_stride:
            stride = 1
            next_dilation = dilation * group.stride
        reached *= stride
        out_channels = scaled(group.channels, width)
        for _ in range(group.blocks):
            block = InvertedResidual(
                in_channels,
                out_channels,
                expansion=group.expansion,
                stride=stride,
                dilation=dilation,
            )
            blocks.append(block)
            in_channels = out_channels
            stride = 1
        dilation = next_dilation
    return blocks


class MobileNetV2(Backbone):
    """Stem and 17 inverted residuals, without the 1280-channel convolution of the classifier."""

    def __init__(self, *, width: float, output_stride: int) -> None:
        super().__init__()
        stem_channels = scaled(32, width)
        stem = nn.Sequential(
            nn.Conv2d(3, stem_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(stem_channels),
            nn.ReLU6(),
        )
        blocks = _blocks(stem_channels, width=width, output_stride=output_stride)
        self.features = nn.Sequential(stem, *blocks)
        self.stages = {
            name: Tap(f"features.{index}", blocks[index - 1].out_channels)
            for name, index in STAGES.items()
        }
        self.low_channels = self.stages["stage1"].channels
        self.channels = self.stages["stage4"].channels

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return (low level at stride 4, high level at the output stride), linear outputs."""
        low_level = features = images_NCHW
        for index, block in enumerate(self.features):
            features = block(features)
            if index == STAGES["stage1"]:
                low_level = features
        return low_level, features

    def from_torchvision(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return the tensors of torchvision's or timm's MobileNetV2 under our names.

        Its last convolution and its head are left out.
        """
        dropped = ("features.18.", "classifier.", "conv_head.", "bn2.")
        taken = {name: tensor for name, tensor in tensors.items() if not name.startswith(dropped)}
        if "conv_stem.weight" in taken:
            return in_order(taken, self.state_dict())
        if any(_NESTED.match(name) for name in taken):
            return {_released_name(name): tensor for name, tensor in taken.items()}
        return taken


def _released_name(name: str) -> str:
    """Return the released name, `conv.4.bias`, of torchvision's, `conv.1.1.bias`.

    torchvision nests convolution, BatchNorm and ReLU6 of a block; the released code numbers them in
    one sequence.
    """
    match = re.fullmatch(r"features\.(\d+)\.conv\.(\d+)\.(?:(\d+)\.)?(\w+)", name)
    if match is None:
        return name
    block, part, inner, tensor = match.groups()
    if inner:
        index = 3 * int(part) + int(inner)
    else:
        num_nested = 2
        if block == "1":  # the first block has no expansion
            num_nested = 1
        index = int(part) + 2 * num_nested
    return f"features.{block}.conv.{index}.{tensor}"


def mobilenet_v2(*, width: float, output_stride: int) -> MobileNetV2:
    """Return MobileNetV2: 320 channels out at width 1."""
    return MobileNetV2(width=width, output_stride=output_stride)
