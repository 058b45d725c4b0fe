"""ResNet backbones with atrous last stages, with torchvision's tensor names and without a head.

They compute the same function as torchvision's networks. A block applies ReLU to its *input* and
returns the sum without one. So the output of `layerN` is the stage's feature before its ReLU, which
is what a distillation tap needs. No ReLU is in place: it would overwrite what a tap has read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.models.base import Backbone, Tap
from attnfd_ray.models.layers import scaled

STRIDES = {16: (1, 2, 2, 1), 8: (1, 2, 1, 1)}
DILATIONS = {16: (1, 1, 1, 2), 8: (1, 1, 2, 4)}
MULTI_GRID = (1, 2, 4)


def _conv3x3(in_channels: int, out_channels: int, *, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size=3,
        stride=stride,
        padding=dilation,
        dilation=dilation,
        bias=False,
    )


def _conv1x1(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        _conv1x1(in_channels, out_channels, stride=stride),
        nn.BatchNorm2d(out_channels),
    )


def _shortcut(downsample: nn.Module | None, inputs: Tensor) -> Tensor:
    if downsample is None:
        return inputs
    shortcut: Tensor = downsample(inputs)
    return shortcut


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, both dilated, around a shortcut."""

    expansion: ClassVar[int] = 1
    multi_grid: ClassVar[bool] = False

    def __init__(self, in_channels: int, planes: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, planes, stride=stride, dilation=dilation)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, stride=1, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _downsample(in_channels, planes, stride)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Return the sum before its ReLU; the next block, or the network's end, applies it."""
        inputs = F.relu(features_NCHW)
        residual: Tensor = self.bn1(self.conv1(inputs))
        residual = self.bn2(self.conv2(F.relu(residual)))
        return _shortcut(self.downsample, inputs) + residual


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride and the dilation) and 1x1 convolutions around a shortcut."""

    expansion: ClassVar[int] = 4
    multi_grid: ClassVar[bool] = True

    def __init__(self, in_channels: int, planes: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.conv1 = _conv1x1(in_channels, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, stride=stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv1x1(planes, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _downsample(in_channels, out_channels, stride)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Return the sum before its ReLU; the next block, or the network's end, applies it."""
        inputs = F.relu(features_NCHW)
        residual: Tensor = self.bn1(self.conv1(inputs))
        residual = self.bn2(self.conv2(F.relu(residual)))
        residual = self.bn3(self.conv3(F.relu(residual)))
        return _shortcut(self.downsample, inputs) + residual


Block = type[BasicBlock] | type[Bottleneck]


def _stage(
    block: Block, in_channels: int, planes: int, *, stride: int, dilations: Sequence[int]
) -> nn.Sequential:
    """Chain one block per dilation; the first takes the stride and the change of channels."""
    blocks: list[nn.Module] = []
    for dilation in dilations:
        blocks.append(block(in_channels, planes, stride=stride, dilation=dilation))
        in_channels = planes * block.expansion
        stride = 1
    return nn.Sequential(*blocks)


class ResNet(Backbone):
    """Stem and four stages.

    Once the output stride is reached, a stage dilates its convolutions instead of striding.
    """

    def __init__(
        self, block: Block, depths: Sequence[int], *, width: float, output_stride: int
    ) -> None:
        super().__init__()
        planes = [scaled(channels, width) for channels in (64, 128, 256, 512)]
        outputs = [channels * block.expansion for channels in planes]
        inputs = [planes[0], *outputs[:-1]]
        strides = STRIDES[output_stride]
        dilations = _dilations(block, depths, output_stride)
        self.conv1 = nn.Conv2d(
            3,
            planes[0],
            kernel_size=7,
            stride=2,
            padding=3,
            bias=False,
        )
        self.bn1 = nn.BatchNorm2d(planes[0])
        stages = [
            _stage(
                block,
                inputs[i],
                planes[i],
                stride=strides[i],
                dilations=dilations[i],
            )
            for i in range(4)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.stages = {
            f"stage{i}": Tap(f"layer{i}", channels) for i, channels in enumerate(outputs, start=1)
        }
        self.low_channels = outputs[0]
        self.channels = outputs[-1]

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return (low level at stride 4, high level at the output stride), both after ReLU."""
        stem = F.relu(self.bn1(self.conv1(images_NCHW)))
        stem = F.max_pool2d(stem, kernel_size=3, stride=2, padding=1)
        # its first block applies ReLU once more, to values that are not negative
        stage1 = self.layer1(stem)
        stage4 = self.layer4(self.layer3(self.layer2(stage1)))
        return F.relu(stage1), F.relu(stage4)


def _dilations(block: Block, depths: Sequence[int], output_stride: int) -> list[list[int]]:
    """Return the dilation of every block, by stage."""
    dilations = [
        [dilation] * depth for dilation, depth in zip(DILATIONS[output_stride], depths, strict=True)
    ]
    if block.multi_grid:
        last = zip(dilations[-1], MULTI_GRID, strict=True)
        dilations[-1] = [dilation * factor for dilation, factor in last]
    return dilations


def resnet18(*, width: float, output_stride: int) -> ResNet:
    """Return ResNet-18: 512 channels out at width 1."""
    return ResNet(BasicBlock, (2, 2, 2, 2), width=width, output_stride=output_stride)


def resnet34(*, width: float, output_stride: int) -> ResNet:
    """Return ResNet-34: 512 channels out at width 1."""
    return ResNet(BasicBlock, (3, 4, 6, 3), width=width, output_stride=output_stride)


def resnet50(*, width: float, output_stride: int) -> ResNet:
    """Return ResNet-50: 2048 channels out at width 1; multi-grid (1, 2, 4) in the last stage."""
    return ResNet(Bottleneck, (3, 4, 6, 3), width=width, output_stride=output_stride)


def resnet101(*, width: float, output_stride: int) -> ResNet:
    """Return ResNet-101: 2048 channels out at width 1; multi-grid (1, 2, 4) in the last stage."""
    return ResNet(Bottleneck, (3, 4, 23, 3), width=width, output_stride=output_stride)
