"""MobileNetV2 backbone of the released DeepLabV3+, under the released tensor names. Knows nothing
of heads.

One oddity is kept because released weights were trained with it: a block pads its input *before*
the 1x1 expansion, so the border that the depthwise convolution sees has been through BatchNorm and
ReLU6 and is not zero. torchvision pads the depthwise convolution; with equal weights the two differ
near the border.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.models.base import Backbone, Tap
from attnfd_ray.models.layers import scaled
from attnfd_ray.models.tensors import in_order

# expansion, channels, blocks, stride of the first block
PLAN = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
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
        return features_NCHW + out if self.has_shortcut else out


def _blocks(in_channels: int, *, width: float, output_stride: int) -> list[InvertedResidual]:
    """Return the 17 blocks after the stem; once at the output stride, a stride becomes a dilation
    of what follows.
    """
    blocks: list[InvertedResidual] = []
    reached, dilation = 2, 1
    for expansion, channels, repeats, stride in PLAN:
        if reached == output_stride:
            current, following = 1, dilation * stride
        else:
            current, following, reached = stride, dilation, reached * stride
        for _ in range(repeats):
            out_channels = scaled(channels, width)
            block = InvertedResidual(
                in_channels, out_channels, expansion=expansion, stride=current, dilation=dilation
            )
            blocks.append(block)
            in_channels, current = out_channels, 1
        dilation = following
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
        """Return (low level at stride 4, high level at the output stride): linear outputs, no
        activation.
        """
        low_level = features = images_NCHW
        for index, block in enumerate(self.features):
            features = block(features)
            if index == STAGES["stage1"]:
                low_level = features
        return low_level, features

    def from_torchvision(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of torchvision's or timm's MobileNetV2 under ours, less its last
        convolution and head.
        """
        dropped = ("features.18.", "classifier.", "conv_head.", "bn2.")
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(dropped)}
        if "conv_stem.weight" in kept:
            return in_order(kept, self.state_dict())
        if any(_NESTED.match(name) for name in kept):
            return {_released_name(name): tensor for name, tensor in kept.items()}
        return kept


def _released_name(name: str) -> str:
    """Number a block's parts flat, as in `conv.4.bias`, where torchvision nests conv, BN, ReLU6:
    `conv.1.1.bias`.
    """
    match = re.fullmatch(r"features\.(\d+)\.conv\.(\d+)\.(?:(\d+)\.)?(\w+)", name)
    if match is None:
        return name
    block, part, inner, tensor = match.groups()
    nested = 1 if block == "1" else 2  # the first block has no expansion
    index = 3 * int(part) + int(inner) if inner else int(part) + 2 * nested
    return f"features.{block}.conv.{index}.{tensor}"


def mobilenet_v2(*, width: float, output_stride: int) -> MobileNetV2:
    """Return MobileNetV2: 320 channels out at width 1."""
    return MobileNetV2(width=width, output_stride=output_stride)
