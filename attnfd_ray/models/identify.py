"""Which network a state dict belongs to, told from the names and shapes of its tensors. Reads no
file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from attnfd_ray import registry
from attnfd_ray.config.messages import dotted, message
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import CheckpointError, ConfigError
from attnfd_ray.models import SegmentationModel, build_model
from attnfd_ray.models.tensors import few

_TORCHVISION = ("deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large")


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """The settings that names and shapes tell; the number of classes, or 1 where the classifier is
    missing.
    """

    settings: dict[str, Any]
    num_classes: int


def recognise(tensors: Mapping[str, Tensor], *, where: Path, backbone: str | None) -> Recognised:
    """Return the network whose names are nearest to those in the file, of those with `backbone` if
    that is given.

    Nearest and not equal, so that a damaged file can be told what it lacks. CheckpointError if
    nothing is like it.
    """
    if not any(name.startswith("backbone.") for name in tensors):
        raise CheckpointError(
            f"{where}: holds no segmentation network: none of its {len(tensors)} names "
            f"({few(list(tensors))}) starts "
            "with 'backbone.'; needed is DeepLabV3+ as AttnFD saves it, torchvision's DeepLabV3, "
            "or a file of our own"
        )
    if any(name.startswith("classifier.") for name in tensors):
        archs = [f"deeplabv3_{backbone}"] if backbone else _TORCHVISION
        candidates = [("arch", f"torchvision/{name}") for name in archs]
    else:
        candidates = [
            ("backbone", name) for name in ([backbone] if backbone else registry.TABLES["backbone"])
        ]
    drafts = [_draft(setting, value) for setting, value in candidates]
    distances = [len(_lasting(draft.state_dict()) ^ _lasting(tensors)) for draft in drafts]
    nearest = distances.index(min(distances))
    settings, draft = dict([candidates[nearest]]), drafts[nearest]
    classifier = tensors.get(f"{draft.taps['logits']}.weight")
    num_classes = classifier.shape[0] if classifier is not None and classifier.dim() else 1
    return Recognised(settings=settings | _width(tensors, draft), num_classes=max(1, num_classes))


def valid_settings(values: Mapping[str, Any]) -> ModelSettings:
    """Return the settings of a network, or raise ConfigError with the first thing that is wrong
    with them.
    """
    try:
        return ModelSettings.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        raise ConfigError(f"{dotted(details['loc'])}: {message(details, values)}") from None


@cache
def _draft(setting: str, value: str) -> SegmentationModel:
    """Return the network of this one setting, without memory for its weights."""
    with torch.device("meta"):
        return build_model(valid_settings({setting: value}), num_classes=1)


def _lasting(names: Collection[str]) -> set[str]:
    """Return the names that files of every age and purpose have: no counters, gates or auxiliary
    heads.
    """
    return {
        name
        for name in names
        if not (
            name.endswith("num_batches_tracked")
            or ".cbam." in name
            or name.startswith("aux_classifier.")
        )
    }


def _width(tensors: Mapping[str, Tensor], draft: SegmentationModel) -> dict[str, float]:
    """Return how much wider our network is than its draft, by what its pyramid takes in."""
    name = "aspp.aspp1.atrous_conv.weight"
    here, needed = tensors.get(name), draft.state_dict().get(name)
    if here is None or needed is None or here.dim() != needed.dim():
        return {}
    width = here.shape[1] / needed.shape[1]
    return {"width": width} if 0 < width <= 4 else {}
