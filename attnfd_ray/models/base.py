"""What a backbone and a segmentation network promise to the rest of the package. No network is
defined here.

Someone's own network (`arch: package.module:Class` or `backbone: package.module:factory`) derives
from these; other libraries' networks are wrapped in these.
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


class Tap(NamedTuple):
    """A place in a network where a feature can be read: a module's path, and the channels of its
    output.
    """

    path: str
    channels: int


class Backbone(nn.Module):
    """Images to two feature maps, and the stages in between.

    `forward(images_NCHW)` returns (low level, high level): stride 4 and `low_channels` deep, the
    output stride and `channels` deep. `stages` names the taps inside, stage1 first; their paths
    start at the backbone.
    """

    low_channels: int
    channels: int
    stages: Mapping[str, Tap]

    def from_torchvision(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a torchvision classifier's tensors under this backbone's names, without the
        classifier.

        Tensors that have this backbone's names already keep them.
        """
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}


class SegmentationModel(nn.Module):
    """Images to class scores: `forward(images_NCHW)` returns logits_NCHW at the input's height and
    width.

    `taps` maps a tap's name to the path of the module whose output it is, see `models.taps`;
    `logits` is among them. There is no other way to a feature than to listen there while `forward`
    runs (`TapRecorder`).
    """

    backbone: Backbone
    taps: Mapping[str, str]
    # side of the image that finds out channels and strides: a multiple of every stride, of no size
    # that matters
    probe_pixels: int = 64
    # where the part is that may start from a classifier's weights
    backbone_path: str = "backbone"
    # what its first weights were read from, in a line; None where they were drawn
    first_weights: str | None = None

    def tap_channels(self) -> dict[str, int]:
        """Return the channel count of every tap in `taps`, found by a small image where a network
        cannot tell.
        """
        return {name: shape.channels for name, shape in tap_shapes(self, self.taps).items()}

    def last_norm(self, tap: str) -> nn.BatchNorm2d | None:
        """Return the BatchNorm that a feature passed last, where no ReLU came after it; None where
        that is not so.
        """
        return None

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that may start from ImageNet, and so learn at the base rate."""
        return self.backbone.parameters()

    def from_classifier(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a classification network's tensors under the names of the backbone, without the
        classifier.

        Tensors that have the backbone's names already keep them, and so do those that belong to
        neither.
        """
        return (
            self.backbone.from_torchvision(tensors)
            if isinstance(self.backbone, Backbone)
            else dict(tensors)
        )

    @staticmethod
    def imagenet(settings: ModelSettings) -> Source:
        """Return where the backbone's ImageNet weights come from. Raises ConfigError where there
        are none.
        """
        if settings.width != 1 or settings.backbone not in OURS:
            raise ConfigError(
                f"pretrained: imagenet: there are no weights for {settings.backbone} at width "
                f"{settings.width:g}; "
                f"set pretrained: none or PATH, or take one of {', '.join(OURS)} at width 1"
            )
        return of_torchvision(settings.backbone)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network of another library, as the registry's families name them: what is known before it
    is built.

    `choices` are the values it can take of backbone, width and output_stride, its own default
    first; `imagenet` is as in SegmentationModel.
    """

    make: Callable[..., SegmentationModel]
    imagenet: Callable[[ModelSettings], Source]
    choices: Mapping[str, Collection[Any]]

    def __call__(self, settings: ModelSettings, *, num_classes: int) -> SegmentationModel:
        """Return the network that `settings` describe."""
        return self.make(settings, num_classes=num_classes)
