"""ImageNet weights for the backbones, torchvision's V1, from torch's cache or its server. Imports torchvision late."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.models.imagenet import TorchCache
from attnfd_ray.models.tensors import fill, read_tensors

if TYPE_CHECKING:
    from attnfd_ray.models.contracts import Backbone

OFFERED = ("mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101")


def load_imagenet(backbone: Backbone, settings: ModelSettings) -> None:
    """Fill `backbone` with the ImageNet-1k V1 weights of its namesake in torchvision.

    ConfigError where there are none (a width other than 1, one's own backbone); CheckpointError, which names the file
    and the directory to put it in, where they are not in the cache and cannot be downloaded.
    """
    if settings.width != 1 or settings.backbone not in OFFERED:
        raise ConfigError(
            f"pretrained: imagenet: there are no weights for {settings.backbone} at width {settings.width:g}; "
            f"set pretrained: none, or take one of {', '.join(OFFERED)} at width 1"
        )
    path = imagenet_file(settings.backbone)
    fill(backbone, backbone.from_torchvision(read_tensors(path)), where=path)


def imagenet_file(name: str) -> Path:
    """Return torchvision's weights file for `name` in torch's cache, downloaded if need be; CheckpointError if not."""
    from torchvision.models import get_model_weights  # takes a second, and only ImageNet weights need it

    return TorchCache(name=name, url=get_model_weights(name).IMAGENET1K_V1.url).file()
