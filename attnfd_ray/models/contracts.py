"""What a backbone and a segmentation network promise to the rest of the package. No network is defined here.

Someone's own network (`arch: package.module:Class` or `backbone: package.module:factory`) derives from these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn


class Tap(NamedTuple):
    """A place in a network where a feature can be read: a module's path, and the channels of its output."""

    path: str
    channels: int


class Backbone(nn.Module):
    """Images to two feature maps, and the stages in between.

    `forward(images_NCHW)` returns (low level, high level): stride 4 and `low_channels` deep, the output stride and
    `channels` deep. `stages` names the taps inside, stage1 first; their paths start at the backbone.
    """

    low_channels: int
    channels: int
    stages: Mapping[str, Tap]

    def from_torchvision(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a torchvision classifier's tensors under this backbone's names, without the classifier."""
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}


class SegmentationModel(nn.Module):
    """Images to class scores: `forward(images_NCHW)` returns logits_NCHW at the input's height and width.

    `taps` maps a tap's name to the path of the module whose output it is. There is no other way to a feature than to
    listen there while `forward` runs (`TapRecorder`).
    """

    backbone: Backbone
    taps: Mapping[str, str]

    def tap_channels(self) -> dict[str, int]:
        """Return the channel count of every tap in `taps`."""
        raise NotImplementedError

    def last_norm(self, tap: str) -> nn.BatchNorm2d | None:
        """Return the BatchNorm that a feature passed last, where no ReLU came after it; None where that is not so."""
        return None

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that may start from ImageNet, and so learn at the base rate."""
        return self.backbone.parameters()
