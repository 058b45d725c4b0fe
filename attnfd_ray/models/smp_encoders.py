"""The encoders of segmentation_models.pytorch: where their ImageNet weights are, and under which names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attnfd_ray.errors import CheckpointError, ConfigError
from attnfd_ray.models.imagenet import HubRepo, Source, TorchCache, bare_name

# classifiers of the networks that smp's own encoders are made from
_CLASSIFIERS = ("fc.", "_fc.", "linear.", "last_linear.", "head.", "classifier.")


def source(name: str) -> Source:
    """Return where the ImageNet weights of an encoder come from. Raises ConfigError where there are none."""
    import segmentation_models_pytorch as smp
    import timm

    if not name.startswith("tu-"):
        offered = smp.encoders.encoders[name]["pretrained_settings"]
        if "imagenet" not in offered:
            raise ConfigError(f"pretrained: imagenet: smp has none for {name}; set pretrained: none or PATH")
        place = offered["imagenet"]
        return HubRepo(name=name, repo=place["repo_id"], revision=place["revision"], files=("model.safetensors",))
    weights = timm.get_pretrained_cfg(name.removeprefix("tu-"))
    if weights is not None and weights.hf_hub_id:
        return HubRepo(name=name, repo=weights.hf_hub_id)
    if weights is not None and weights.url:
        return TorchCache(name=name, url=str(weights.url))
    raise ConfigError(f"pretrained: imagenet: timm has none for {name}; set pretrained: none or PATH")


def own_names(encoder: nn.Module, name: str, tensors: Mapping[str, Tensor], *, where: Any) -> dict[str, Tensor]:
    """Return the tensors of a classifier of smp, timm or a package under the encoder's names, the rest left out.

    What neither the encoder nor the classifier has keeps its name, to be found unexpected.
    """
    wanted = encoder.state_dict()
    if not name.startswith(("tu-", "timm-tf_efficientnet_lite")):
        return {key: tensor for key, tensor in tensors.items() if key in wanted or not key.startswith(_CLASSIFIERS)}
    classifier = _classifier(bare_name(name) if name.startswith("timm-") else name.removeprefix("tu-"))
    if "_conv_stem.weight" in tensors:  # of the packages, whose names are another library's
        tensors = in_order(tensors, classifier, where=where)
    renamed = {_inside(key, wanted): tensor for key, tensor in tensors.items()}
    known = {_inside(key, wanted) for key in classifier}
    return {key: tensor for key, tensor in renamed.items() if key in wanted or key not in known}


def in_order(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor], *, where: Any) -> dict[str, Tensor]:
    """Return the tensors under the names of `like`, one after another; kinds and shapes must agree all along."""

    def described(all_: Mapping[str, Tensor]) -> list[tuple[str, torch.Size]]:
        return [(key.rpartition(".")[2], tensor.shape) for key, tensor in all_.items()]

    if described(tensors) != described(like):
        raise CheckpointError(f"{where}: its tensors are not those of the network, one after another")
    return dict(zip(like, tensors.values(), strict=True))


def _classifier(name: str) -> dict[str, Tensor]:
    """Return the names and shapes of timm's whole network, without memory for its weights."""
    import timm

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        tensors: dict[str, Tensor] = timm.create_model(name).state_dict()
    return tensors


def _inside(key: str, wanted: Collection[str]) -> str:
    """Return a classifier's name as the encoder has it, where timm's `features_only` has changed it."""
    flat = re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", key)
    return next((found for inner in (key, flat) for found in (f"model.{inner}", inner) if found in wanted), key)
