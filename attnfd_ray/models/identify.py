"""Which network a state dict belongs to, by the names and shapes of its tensors. Reads no file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
from attnfd_ray.models.tensors import Tensors, few

_TORCHVISION = ("deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large")


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """The settings that follow from names and shapes, and the number of classes.

    The number of classes is 1 where the classifier is missing.
    """

    settings: dict[str, Any]
    num_classes: int


def recognise(tensors: Tensors, *, where: Path, backbone: str | None) -> Recognised:
    """Return the network whose names are nearest to those in the file.

    With `backbone` only networks on that backbone are compared. The nearest is returned even if it
    is not equal, so that a caller can list the tensors that a damaged file lacks. Raises
    CheckpointError where no network resembles it.
    """
    if not any(name.startswith("backbone.") for name in tensors):
        raise CheckpointError(
            f"{where}: holds no segmentation network: none of its {len(tensors)} names "
            f"({few(list(tensors))}) starts with 'backbone.'; needed is DeepLabV3+ as AttnFD saves "
            "it, torchvision's DeepLabV3, or a file of our own"
        )
    drafts = {
        candidate: _draft(*candidate) for candidate in _candidates(tensors, backbone=backbone)
    }
    names = _compared_names(tensors)
    distances = {
        candidate: len(_compared_names(draft.state_dict()) ^ names)
        for candidate, draft in drafts.items()
    }
    nearest = min(distances, key=distances.__getitem__)
    setting, value = nearest
    draft = drafts[nearest]
    return Recognised(
        settings={setting: value} | _width(tensors, draft),
        num_classes=_num_classes(tensors.get(f"{draft.taps['logits']}.weight")),
    )


def _candidates(tensors: Tensors, *, backbone: str | None) -> list[tuple[str, str]]:
    """Return (setting, value) of each network that the file may be of."""
    if any(name.startswith("classifier.") for name in tensors):
        archs: Sequence[str] = _TORCHVISION
        if backbone:
            archs = [f"deeplabv3_{backbone}"]
        return [("arch", f"torchvision/{name}") for name in archs]
    if backbone:
        return [("backbone", backbone)]
    return [("backbone", name) for name in registry.TABLES["backbone"]]


def _num_classes(classifier: Tensor | None) -> int:
    if classifier is None or not classifier.dim():
        return 1
    return max(1, classifier.shape[0])


def valid_settings(values: Mapping[str, Any]) -> ModelSettings:
    """Return the settings of a network. Raises ConfigError with the first problem in them."""
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


def _compared_names(names: Collection[str]) -> set[str]:
    """Return the names without counters, gates and auxiliary heads, which not every file has."""
    return {name for name in names if not _is_optional(name)}


def _is_optional(name: str) -> bool:
    is_counter = name.endswith("num_batches_tracked")
    return is_counter or ".cbam." in name or name.startswith("aux_classifier.")


def _width(tensors: Tensors, draft: SegmentationModel) -> dict[str, float]:
    """Return the width relative to the draft's, by the input channels of the pyramid."""
    name = "aspp.aspp1.atrous_conv.weight"
    given = tensors.get(name)
    needed = draft.state_dict().get(name)
    if given is None or needed is None or given.dim() != needed.dim():
        return {}
    width = given.shape[1] / needed.shape[1]
    if not 0 < width <= 4:
        return {}
    return {"width": width}
