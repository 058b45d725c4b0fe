"""Encoders of segmentation_models.pytorch: the sources and names of their ImageNet weights."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from attnfd_ray.errors import ConfigError
from attnfd_ray.models.hub import HubRepo
from attnfd_ray.models.imagenet import Source, TorchCache, bare_name
from attnfd_ray.models.tensors import Tensors, in_order

# classifiers of the networks that smp's own encoders are made from
_CLASSIFIERS = ("fc.", "_fc.", "linear.", "last_linear.", "head.", "classifier.")


def source(name: str) -> Source:
    """Return the source of an encoder's ImageNet weights. Raises ConfigError if there is none."""
    if name.startswith("tu-"):
        return _source_of_timm(name)
    import segmentation_models_pytorch as smp

    offered = smp.encoders.encoders[name]["pretrained_settings"]
    if "imagenet" not in offered:
        raise ConfigError(
            f"pretrained: imagenet: smp has none for {name}; set pretrained: none or PATH"
        )
    return HubRepo(
        name=name,
        repo=offered["imagenet"]["repo_id"],
        revision=offered["imagenet"]["revision"],
        files=("model.safetensors",),
    )


def _source_of_timm(name: str) -> Source:
    import timm

    weights: Any = timm.get_pretrained_cfg(name.removeprefix("tu-"))
    if weights is not None and weights.hf_hub_id:
        files = HubRepo.files
        if weights.hf_hub_filename:
            files = (weights.hf_hub_filename, *files)
        return HubRepo(name=name, repo=weights.hf_hub_id, files=files)
    if weights is not None and weights.url:
        return TorchCache(name=name, url=str(weights.url))
    raise ConfigError(
        f"pretrained: imagenet: timm has none for {name}; set pretrained: none or PATH"
    )


def own_names(encoder: nn.Module, name: str, tensors: Tensors) -> dict[str, Tensor]:
    """Return a classifier's tensors under the encoder's names, without the classifier's head.

    The classifier may be smp's, timm's or of a package. A tensor that neither the encoder nor the
    classifier has keeps its name, so that a later check reports it as unexpected.
    """
    if name.startswith(("tu-", "timm-tf_efficientnet_lite")):
        return _names_of_timm(encoder, name, tensors)
    return _names_of_smp(encoder, tensors)


def _names_of_smp(encoder: nn.Module, tensors: Tensors) -> dict[str, Tensor]:
    wanted = encoder.state_dict()
    is_densenet = type(encoder).__name__.startswith("DenseNet")
    renamed = {}
    for key, tensor in tensors.items():
        if is_densenet:  # old files of torchvision number its layers in another way
            key = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)
        if key in wanted or not key.startswith(_CLASSIFIERS):
            renamed[key] = tensor
    return renamed


def _names_of_timm(encoder: nn.Module, name: str, tensors: Tensors) -> dict[str, Tensor]:
    wanted = encoder.state_dict()
    timm_name = name.removeprefix("tu-")
    if name.startswith("timm-"):
        timm_name = bare_name(name)
    classifier = _classifier(timm_name)
    names = classifier.state_dict()
    if "_conv_stem.weight" in tensors:  # the packages use another library's names
        tensors = in_order(tensors, names)
    known = {_inside(key, wanted) for key in names}
    renamed = {_inside(key, wanted): tensor for key, tensor in tensors.items()}
    if not renamed.keys() <= known:  # the hub keeps some under their authors' names
        converted = _converted_by_timm(classifier, tensors)
        if converted is not None:
            renamed = {_inside(key, wanted): tensor for key, tensor in converted.items()}
    return {key: tensor for key, tensor in renamed.items() if key in wanted or key not in known}


def _converted_by_timm(classifier: nn.Module, tensors: Tensors) -> Tensors | None:
    """Return the tensors under timm's names, None where timm cannot convert them.

    The file of another network makes timm raise any error; a later check reports its tensors.
    """
    convert = getattr(sys.modules[type(classifier).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return None
    with contextlib.suppress(Exception):
        return dict(convert(dict(tensors), classifier))
    return None


def _classifier(name: str) -> nn.Module:
    """Return timm's whole network, without memory for its weights."""
    import timm

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network: nn.Module = timm.create_model(name)
    return network


def _inside(key: str, wanted: Collection[str]) -> str:
    """Return a classifier's name as the encoder has it; timm's `features_only` changes names."""
    for name in _possible_names(key):
        if name in wanted:
            return name
    return key


def _possible_names(key: str) -> Iterator[str]:
    flat = re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", key)
    for name in (key, flat):
        yield f"model.model.{name}"
        yield f"model.{name}"
        yield name
