"""The encoders of segmentation_models.pytorch: where their ImageNet weights are, and under which
names.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from attnfd_ray.errors import ConfigError
from attnfd_ray.models.hub import HubRepo
from attnfd_ray.models.imagenet import Source, TorchCache, bare_name
from attnfd_ray.models.tensors import in_order

# classifiers of the networks that smp's own encoders are made from
_CLASSIFIERS = ("fc.", "_fc.", "linear.", "last_linear.", "head.", "classifier.")


def source(name: str) -> Source:
    """Return where the ImageNet weights of an encoder come from. Raises ConfigError where there are
    none.
    """
    import segmentation_models_pytorch as smp
    import timm

    if not name.startswith("tu-"):
        offered = smp.encoders.encoders[name]["pretrained_settings"]
        if "imagenet" not in offered:
            raise ConfigError(
                f"pretrained: imagenet: smp has none for {name}; set pretrained: none or PATH"
            )
        place = offered["imagenet"]
        return HubRepo(
            name=name,
            repo=place["repo_id"],
            revision=place["revision"],
            files=("model.safetensors",),
        )
    weights = timm.get_pretrained_cfg(name.removeprefix("tu-"))
    if weights is not None and weights.hf_hub_id:
        own = (weights.hf_hub_filename,) if weights.hf_hub_filename else ()
        return HubRepo(name=name, repo=weights.hf_hub_id, files=(*own, *HubRepo.files))
    if weights is not None and weights.url:
        return TorchCache(name=name, url=str(weights.url))
    raise ConfigError(
        f"pretrained: imagenet: timm has none for {name}; set pretrained: none or PATH"
    )


def own_names(encoder: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a classifier of smp, timm or a package under the encoder's names, the
    rest left out.

    What neither the encoder nor the classifier has keeps its name, to be found unexpected.
    """
    wanted = encoder.state_dict()
    if not name.startswith(("tu-", "timm-tf_efficientnet_lite")):
        tensors = _renamed_by(encoder, tensors)
        return {
            key: tensor
            for key, tensor in tensors.items()
            if key in wanted or not key.startswith(_CLASSIFIERS)
        }
    classifier = _classifier(
        bare_name(name) if name.startswith("timm-") else name.removeprefix("tu-")
    )
    names = classifier.state_dict()
    if "_conv_stem.weight" in tensors:  # of the packages, whose names are another library's
        tensors = in_order(tensors, names)
    renamed = {_inside(key, wanted): tensor for key, tensor in tensors.items()}
    known = {_inside(key, wanted) for key in names}
    convert = getattr(sys.modules[type(classifier).__module__], "checkpoint_filter_fn", None)
    if (
        convert is not None and not renamed.keys() <= known
    ):  # the hub keeps some as their authors named them
        with contextlib.suppress(
            Exception
        ):  # timm converts what it knows; another network's file is found unexpected
            renamed = {
                _inside(key, wanted): tensor
                for key, tensor in convert(dict(tensors), classifier).items()
            }
    return {key: tensor for key, tensor in renamed.items() if key in wanted or key not in known}


def _renamed_by(encoder: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors as smp's DenseNet has them, which old files of torchvision number another
    way.
    """
    if not type(encoder).__name__.startswith("DenseNet"):
        return tensors
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): each
        for key, each in tensors.items()
    }


def _classifier(name: str) -> nn.Module:
    """Return timm's whole network, without memory for its weights."""
    import timm

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network: nn.Module = timm.create_model(name)
    return network


def _inside(key: str, wanted: Collection[str]) -> str:
    """Return a classifier's name as the encoder has it, where timm's `features_only` has changed
    it.
    """
    flat = re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", key)
    names = (f"{outer}{inner}" for inner in (key, flat) for outer in ("model.model.", "model.", ""))
    return next((name for name in names if name in wanted), key)
