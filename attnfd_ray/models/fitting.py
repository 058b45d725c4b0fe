"""Which tensors of a file fill a network: all of it, or its backbone. Reads no file.

Tensors made for another task are left out: a classifier, an auxiliary head, attention gates. All
others have to fit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from attnfd_ray.models.base import SegmentationModel
from attnfd_ray.models.files import without_halves
from attnfd_ray.models.tensors import Tensors, check_fit, shapes_of, without

# prefixes that libraries put before all names of a network
_PREFIXES = ("module.", "model.", "backbone.", "encoder.")


class Fit(NamedTuple):
    """The tensors that fill a part of a network, and the names in the file of all others.

    `tensors` have the network's names; `left_out` maps a reason to names.
    """

    part: Literal["backbone", "whole network"]
    tensors: dict[str, Tensor]
    left_out: dict[str, tuple[str, ...]]


def fit(model: SegmentationModel, tensors: Tensors, *, where: Path | str) -> Fit:
    """Return what to fill `model` with.

    Raises Misfit, which begins with `where`, if tensors are missing, unexpected or of another
    shape.
    """
    own = model.state_dict()
    inner = _inner(own, prefix=f"{model.backbone_path}.")
    left_out: dict[str, list[str]] = {"attention gates": [], "auxiliary classifier": []}
    usable = {}
    for name, tensor in tensors.items():
        if ".cbam." in name and name not in own:
            left_out["attention gates"].append(name)
        elif "aux_classifier." in name and name not in own:
            left_out["auxiliary classifier"].append(name)
        else:
            usable[name] = tensor
    usable = _without_prefixes(usable, known=own.keys() | inner.keys())
    usable = without_halves(usable)
    if not inner or _is_whole(usable, prefix=f"{model.backbone_path}."):
        return _fit_whole(model, own, usable, left_out, where=where)
    return _fit_backbone(model, inner, usable, left_out, where=where)


def _inner(own: Tensors, prefix: str) -> dict[str, Tensor]:
    """Return the tensors of the backbone, by their names in it."""
    return {
        name.removeprefix(prefix): tensor for name, tensor in own.items() if name.startswith(prefix)
    }


def _is_whole(names: Collection[str], prefix: str) -> bool:
    """Return whether some names are the backbone's and some are not."""
    in_backbone = [name.startswith(prefix) for name in names]
    return any(in_backbone) and not all(in_backbone)


def _fit_whole(
    model: SegmentationModel,
    own: Tensors,
    tensors: Tensors,
    left_out: Mapping[str, Sequence[str]],
    *,
    where: Path | str,
) -> Fit:
    head = _head_of_other_classes(model, own, tensors)
    taken = without(tensors, head)
    needed = shapes_of(without(own, head))
    check_fit(needed, taken, where=where)
    left_out = {**left_out, "classifier of other classes": head}
    return Fit("whole network", taken, _reasons(left_out))


def _fit_backbone(
    model: SegmentationModel,
    inner: Tensors,
    tensors: Tensors,
    left_out: Mapping[str, Sequence[str]],
    *,
    where: Path | str,
) -> Fit:
    prefix = f"{model.backbone_path}."
    tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    taken = model.from_classifier(tensors)
    check_fit(shapes_of(inner), taken, where=where)
    # renaming a tensor does not move its data, so addresses tell which tensors were taken
    addresses = {tensor.data_ptr() for tensor in taken.values()}
    classifier = [name for name, tensor in tensors.items() if tensor.data_ptr() not in addresses]
    left_out = {**left_out, "classifier": classifier}
    with_prefix = {f"{prefix}{name}": tensor for name, tensor in taken.items()}
    return Fit("backbone", with_prefix, _reasons(left_out))


def _reasons(left_out: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {reason: tuple(names) for reason, names in left_out.items() if names}


def _without_prefixes(tensors: Tensors, known: set[str]) -> dict[str, Tensor]:
    """Return the tensors without the prefixes of all of their names, until one name is known."""
    found = dict(tensors)
    while found and known.isdisjoint(found):
        prefix = _common_prefix(found)
        if prefix is None:
            break
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _common_prefix(names: Collection[str]) -> str | None:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in names):
            return prefix
    return None


def _head_of_other_classes(model: SegmentationModel, own: Tensors, tensors: Tensors) -> list[str]:
    """Return the tensors of the classifier that were made for another number of classes."""
    prefix = model.taps["logits"].partition("[")[0] + "."
    return [
        name
        for name, tensor in tensors.items()
        if name.startswith(prefix)
        and name in own
        and _differ_in_classes(tensor.shape, own[name].shape)
    ]


def _differ_in_classes(given: torch.Size, needed: torch.Size) -> bool:
    if given == needed or not given or not needed:
        return False
    return given[1:] == needed[1:]
