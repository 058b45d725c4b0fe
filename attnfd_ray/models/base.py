"""The contracts of a backbone and of a segmentation network. No network is defined here.

A network of your own (`arch: package.module:Class` or `backbone: package.module:factory`) derives
from these classes. Networks of other libraries are wrapped in them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.models.imagenet import OURS, Source, of_torchvision
from attnfd_ray.models.taps import tap_shapes
from attnfd_ray.models.tensors import Tensors


class Tap(NamedTuple):
    """A point where a feature can be read: a module's path, and the channels of its output."""

    path: str
    channels: int


class Backbone(nn.Module):
    """Images to two feature maps.

    `forward(images_NCHW)` returns (low level, high level). The low level has stride 4 and
    `low_channels` channels, the high level has the output stride and `channels` channels. `stages`
    maps names to the taps inside, stage1 first, with paths relative to the backbone.

    A backbone of your own is a factory `(*, width, output_stride)` that returns one, named
    `backbone: package.module:factory`. `width` is a factor on channel counts, `output_stride` is 8
    or 16. `attnfd_ray.testing.networks` checks it against this contract.
    """

    low_channels: int
    channels: int
    stages: Mapping[str, Tap]

    def from_torchvision(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return a torchvision classifier's tensors under this backbone's names.

        The classifier is left out. Tensors that already have this backbone's names keep them.
        """
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}


class SegmentationModel(nn.Module):
    """A segmentation network: `forward(images_NCHW)` returns logits_NCHW at the images' size.

    `images_NCHW` are float, normalised RGB of any height and width. The logits have one channel a
    class and the height and width of the images.

    `taps` maps names to paths of modules whose output is a feature, see `models.taps`. One of them
    is `logits`, the class scores before the last up-sampling. Features are only read from taps
    while `forward` runs (`TapRecorder`); there is no second forward.

    A network of your own is a class `(settings, *, num_classes)`, named
    `arch: package.module:Class`. Its first weights come from torch's global generator.
    `attnfd_ray.testing.networks` checks it against this contract.

    >>> import torch
    >>> from torch.nn import functional as F
    >>> from attnfd_ray.config.schema import ModelSettings
    >>> from attnfd_ray.models.base import SegmentationModel
    >>> class MyNetwork(SegmentationModel):
    ...     def __init__(self, settings, *, num_classes):
    ...         super().__init__()
    ...         self.backbone = nn.Conv2d(3, 8, 3, stride=4, padding=1)
    ...         self.head = nn.Conv2d(8, num_classes, 1)
    ...         self.taps = {"stage1": "backbone", "logits": "head"}
    ...
    ...     def forward(self, images_NCHW):
    ...         logits = self.head(F.relu(self.backbone(images_NCHW)))
    ...         return F.interpolate(logits, size=images_NCHW.shape[-2:], mode="bilinear")
    >>> model = MyNetwork(ModelSettings(), num_classes=4)
    >>> model(torch.zeros(2, 3, 45, 60)).shape
    torch.Size([2, 4, 45, 60])
    >>> model.tap_channels()
    {'stage1': 8, 'logits': 4}
    """

    # the part that may start from a classifier's weights, at `backbone_path`
    backbone: Backbone
    backbone_path: str = "backbone"
    taps: Mapping[str, str]
    # side, in pixels, of the image that measures channels and strides: a multiple of every stride
    probe_pixels: int = 64
    # one line that names the source of its first weights; None where they are random
    first_weights: str | None = None

    def tap_channels(self) -> dict[str, int]:
        """Return the channel count of every tap in `taps`.

        By default a forward pass of a small image measures them.
        """
        return {name: shape.channels for name, shape in tap_shapes(self, self.taps).items()}

    def last_norm(self, tap: str) -> nn.BatchNorm2d | None:
        """Return the last BatchNorm before a tap if no ReLU is between them, else None."""
        return None

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that may start from ImageNet, and so learn at the base rate."""
        return self.backbone.parameters()

    def from_classifier(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return a classification network's tensors under the names of the backbone.

        The classifier is left out. Tensors that already have the backbone's names keep them, and so
        do unknown tensors.
        """
        if isinstance(self.backbone, Backbone):
            return self.backbone.from_torchvision(tensors)
        return dict(tensors)

    @staticmethod
    def imagenet(settings: ModelSettings) -> Source:
        """Return the source of the backbone's ImageNet weights.

        Raises ConfigError where there are none.
        """
        if settings.width != 1 or settings.backbone not in OURS:
            raise ConfigError(
                f"pretrained: imagenet: there are no weights for {settings.backbone} at width "
                f"{settings.width:g}; set pretrained: none or PATH, or take one of "
                f"{', '.join(OURS)} at width 1"
            )
        return of_torchvision(settings.backbone)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What is known about another library's network before it is built; the registry's families.

    `choices` are the values allowed for backbone, width and output_stride, the default first.
    `imagenet` is as in SegmentationModel.
    """

    make: Callable[..., SegmentationModel]
    imagenet: Callable[[ModelSettings], Source]
    choices: Mapping[str, Collection[Any]]

    def __call__(self, settings: ModelSettings, *, num_classes: int) -> SegmentationModel:
        """Return the network that `settings` describe."""
        return self.make(settings, num_classes=num_classes)
