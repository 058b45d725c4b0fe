"""ImageNet weights for the backbones, torchvision's V1, from torch's cache or its server. Imports torchvision late."""

from __future__ import annotations

import hashlib
import http.client
import logging
import shutil
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import CheckpointError, ConfigError
from attnfd_ray.models.tensors import fill, read_tensors

if TYPE_CHECKING:
    from attnfd_ray.models.contracts import Backbone

OFFERED = ("mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101")

log = logging.getLogger(__name__)


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

    url: str = get_model_weights(name).IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        try:
            download(url, path)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise CheckpointError(
                f"ImageNet weights of {name}: cannot download {url} ({reason}); "
                f"put {path.name} into {path.parent}/ or set pretrained: none"
            ) from None
    return path


def download(url: str, path: Path, *, timeout_s: float = 20) -> None:
    """Fetch `url` to `path`, whole or not at all; the file name ends in the first digits of its SHA-256.

    torch.hub's own would wait for ever on a silent server and print. Raises OSError or HTTPException where the network
    fails (after `timeout_s` of silence), ValueError where other bytes came than the name promises.
    """
    log.info("downloading %s to %s", url, path)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=timeout_s) as answer, aside.open("wb") as file:  # noqa: S310
            shutil.copyfileobj(answer, file, 1 << 20)
        with aside.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not digest.startswith(path.stem.rpartition("-")[2]):
            raise ValueError(f"what came has SHA-256 {digest[:8]}...")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
