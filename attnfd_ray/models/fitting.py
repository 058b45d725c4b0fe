"""Which tensors of a file fill which part of a network: the whole of it, or its backbone. Reads no
file.

Left out is what another task has made: a classifier, an auxiliary head, attention gates. All else
has to fit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from attnfd_ray.models.base import SegmentationModel
from attnfd_ray.models.files import without_halves
from attnfd_ray.models.tensors import check_fit

# what libraries put before all names of a network
_PREFIXES = ("module.", "model.", "backbone.", "encoder.")


class Fit(NamedTuple):
    """The tensors that fill a part of a network, by the network's names, and the names in the file
    of what does not.
    """

    part: Literal["backbone", "whole network"]
    tensors: dict[str, Tensor]
    left_out: dict[str, tuple[str, ...]]
    """Why -> names."""


def fit(model: SegmentationModel, tensors: Mapping[str, Tensor], *, where: Path | str) -> Fit:
    """Return what to fill `model` with. Raises Misfit, which begins with `where`, for what does not
    fit.
    """
    own = model.state_dict()
    gates = [name for name in tensors if ".cbam." in name and name not in own]
    auxiliary = [name for name in tensors if "aux_classifier." in name and name not in own]
    kept = {name: tensor for name, tensor in tensors.items() if name not in {*gates, *auxiliary}}
    left_out = {"attention gates": tuple(gates), "auxiliary classifier": tuple(auxiliary)}
    prefix = f"{model.backbone_path}."
    inner = {
        name.removeprefix(prefix): tensor for name, tensor in own.items() if name.startswith(prefix)
    }
    kept = without_halves(_stripped(kept, own.keys() | inner.keys()))
    of_backbone = [name.startswith(prefix) for name in kept]
    if not inner or (any(of_backbone) and not all(of_backbone)):
        head = _other_head(model, kept)
        taken = {name: tensor for name, tensor in kept.items() if name not in head}
        check_fit({name: own[name].shape for name in own if name not in head}, taken, where=where)
        left_out["classifier of other classes"] = tuple(head)
        return Fit("whole network", taken, _said(left_out))
    kept = {name.removeprefix(prefix): tensor for name, tensor in kept.items()}
    taken = model.from_classifier(kept)
    check_fit({name: tensor.shape for name, tensor in inner.items()}, taken, where=where)
    places = {tensor.data_ptr() for tensor in taken.values()}  # a renamed tensor stays where it is
    left_out["classifier"] = tuple(
        name for name, tensor in kept.items() if tensor.data_ptr() not in places
    )
    return Fit(
        "backbone", {f"{prefix}{name}": tensor for name, tensor in taken.items()}, _said(left_out)
    )


def _said(left_out: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {why: names for why, names in left_out.items() if names}


def _stripped(tensors: Mapping[str, Tensor], known: Collection[str]) -> dict[str, Tensor]:
    """Return the tensors without what stands before all of their names, until one of them is
    known.
    """
    found = dict(tensors)
    while not any(name in known for name in found):
        prefix = next(
            (each for each in _PREFIXES if all(name.startswith(each) for name in found)), None
        )
        if prefix is None or not found:
            return found
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _other_head(model: SegmentationModel, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the tensors of the classifier that were made for another number of classes."""
    own, path = model.state_dict(), model.taps["logits"].partition("[")[0]
    head = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{path}.") and name in own
    }
    return [
        name for name, tensor in head.items() if _differ_in_classes(tensor.shape, own[name].shape)
    ]


def _differ_in_classes(here: torch.Size, needed: torch.Size) -> bool:
    return here != needed and here[1:] == needed[1:] and len(here) == len(needed) > 0
