"""Networks: built from settings, their features read by tap, their weights kept in files.

`build_model` makes a network, `TapRecorder` reads its features, `save_model` and `load_weights`
write and read its weights. Imports config, registry and errors; nothing of training or data.
"""

from __future__ import annotations

from attnfd_ray import registry
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.models.base import Backbone, SegmentationModel, Tap
from attnfd_ray.models.files import (
    ModelHeader,
    cbam_state,
    load_student,
    load_weights,
    model_hash,
    read_header,
    save_model,
)
from attnfd_ray.models.pretrained import load_first_weights
from attnfd_ray.models.taps import TapRecorder, TapShape, locate, tap_shapes

__all__ = [
    "Backbone",
    "ModelHeader",
    "SegmentationModel",
    "Tap",
    "TapRecorder",
    "TapShape",
    "build_model",
    "cbam_state",
    "load_student",
    "load_weights",
    "locate",
    "model_hash",
    "read_header",
    "save_model",
    "tap_shapes",
]


def build_model(settings: ModelSettings, *, num_classes: int) -> SegmentationModel:
    """Return the network that `settings` describe, in train mode, on the CPU.

    First weights come from torch's global generator. The generator ends in the same state whether
    or not `pretrained` replaces any of them. `num_classes` is the number of channels of the logits.

    Raises ConfigError for a network that cannot be built, CheckpointError for weights that cannot
    be read or do not fit.

    >>> import torch
    >>> from attnfd_ray.config.schema import ModelSettings
    >>> from attnfd_ray.models import build_model
    >>> settings = ModelSettings(arch="deeplabv3plus", backbone="resnet18", width=0.125)
    >>> model = build_model(settings, num_classes=11).eval()
    >>> model(torch.zeros(1, 3, 45, 60)).shape
    torch.Size([1, 11, 45, 60])
    """
    model = registry.load("arch", settings.arch)(settings, num_classes=num_classes)
    if not isinstance(model, SegmentationModel):
        raise ConfigError(
            f"arch '{settings.arch}' must derive from attnfd_ray.models.SegmentationModel"
        )
    if "logits" not in model.taps:
        raise ConfigError(
            f"arch '{settings.arch}': its taps must name 'logits', the scores before up-sampling"
        )
    if settings.pretrained != "none":
        load_first_weights(model, settings)
    return model
