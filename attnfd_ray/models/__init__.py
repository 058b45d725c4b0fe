"""What a network is: built by settings, its taps by name, its weights in files. Nothing of training
or data.

`build_model` makes one, `TapRecorder` reads its features, `save_model` and `load_weights` keep and
fetch its weights.
"""

from __future__ import annotations

from attnfd_ray import registry
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.models.base import Backbone, SegmentationModel, Tap
from attnfd_ray.models.files import (
    ModelHeader,
    cbam_state,
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
    "load_weights",
    "locate",
    "model_hash",
    "read_header",
    "save_model",
    "tap_shapes",
]


def build_model(settings: ModelSettings, *, num_classes: int) -> SegmentationModel:
    """Return the network that `settings` describe, in train mode, on the CPU.

    First weights come from torch's global generator, which ends in the same state whether or not
    `pretrained` replaces any. Raises ConfigError for a network that is none, CheckpointError for
    weights that are out of reach or do not fit.
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
