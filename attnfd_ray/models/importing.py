"""Converts networks from elsewhere to our format: the released DeepLabV3+, torchvision's, our own.

A released DeepLabV3+ may contain CBAM gates. A file is data: none of its code runs, and no module
that it names is imported. Every tensor in it ends in the new file, or is reported as left out, or
stops the import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import CheckpointError, StoreError
from attnfd_ray.models import ModelHeader, SegmentationModel, build_model
from attnfd_ray.models.files import (
    CBAM_LOCATIONS,
    Gates,
    gates_among,
    model_hash,
    read_header,
    save_model,
    without_halves,
)
from attnfd_ray.models.gate_probe import GateReport, gate_shapes, probe_gate
from attnfd_ray.models.identify import Recognised, recognise, valid_settings
from attnfd_ray.models.tensors import (
    Content,
    Tensors,
    check_fit,
    few,
    fill,
    read_content,
    shapes_of,
    without,
)

StrideFrom = Literal["given", "header", "assumed"]

_GATED_TAPS = dict(zip(CBAM_LOCATIONS, ("stage4", "aspp", "decoder"), strict=True))
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What was taken from a file, and what was left out.

    `num_counters_added` are BatchNorm's `num_batches_tracked`, set to 0, which files from before
    torch 0.4.1 lack. `left_out` maps a reason to names.
    """

    settings: ModelSettings
    class_names: tuple[str, ...]
    stride_from: StrideFrom
    num_tensors: int
    num_counters_added: int
    left_out: dict[str, tuple[str, ...]]
    gates: tuple[GateReport, ...]


def import_network(
    file: Path,
    out: Path,
    *,
    backbone: str | None = None,
    output_stride: Literal[8, 16] | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Imported:
    """Write the network of `file` to `out` in our format with its attention gates; return a report.

    Options that are not given are read from our header, or else follow from names and shapes. No
    tensor depends on the output stride: without a header it is 16 (torchvision's: 8), and the
    classes are class0, class1, ...

    Raises CheckpointError for a file that cannot be read or does not fit (a `Misfit` lists every
    tensor that does not). Raises StoreError if `out` exists or cannot be written.
    """
    if out.exists():
        raise StoreError(f"{out}: there already; move it away or give another name")
    content = read_content(file)
    header = read_header(file, own_parts=False)
    _check_values(content.tensors, file)
    tensors = without_halves(content.tensors)
    recognised = _recognised(header, tensors, where=file, backbone=backbone)
    settings = _settings(recognised, {"backbone": backbone, "output_stride": output_stride})
    count = num_classes or recognised.num_classes
    # the file has all weights, so first weights need not be fetched
    model = build_model(settings.model_copy(update={"pretrained": "none"}), num_classes=count)
    auxiliary = _auxiliary(tensors, model)
    tensors = without(tensors, auxiliary)
    where = str(file)
    if header is None:
        where += f": read as {described(settings)}"
    gates = _fill(model, tensors, where=where, classes=count)
    names = _class_names(class_names, header, count, where=file)
    gate_tensors = _with_locations(gates)
    # all that can fail comes before the file is written: an existing file is not overwritten
    imported = Imported(
        settings=settings,
        class_names=names,
        stride_from=_stride_from(output_stride, header),
        num_tensors=len(tensors) - len(gate_tensors),
        num_counters_added=_num_missing_counters(model, tensors),
        left_out=_left_out(content, tensors, auxiliary),
        gates=tuple(probe_gate(location, gate) for location, gate in gates.items()),
    )
    save_model(
        model,
        out,
        settings=settings,
        num_classes=count,
        class_names=names,
        extra=_extra(file, header),
        beside=gate_tensors,
    )
    return imported


def described(settings: ModelSettings) -> str:
    """Return a network's settings in a few words."""
    text = f"{settings.arch} with {settings.backbone}"
    if settings.width != 1:
        text += f" at width {settings.width:g}"
    return text


def _check_values(tensors: Tensors, file: Path) -> None:
    """Raise CheckpointError for complex, infinite or NaN values."""
    bad = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if bad:
        raise CheckpointError(
            f"{file}: {len(bad)} tensors hold values that are no finite numbers ({few(bad)})"
        )


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_complex() and bool(tensor.double().isfinite().all())


def _recognised(
    header: ModelHeader | None,
    tensors: Tensors,
    *,
    where: Path,
    backbone: str | None,
) -> Recognised:
    if header is None:
        return recognise(tensors, where=where, backbone=backbone)
    return Recognised(settings=header.settings.model_dump(), num_classes=header.num_classes)


def _settings(recognised: Recognised, given: Mapping[str, Any]) -> ModelSettings:
    """Return the recognised settings with those that the caller gave."""
    return valid_settings(
        recognised.settings | {name: value for name, value in given.items() if value}
    )


def _auxiliary(tensors: Tensors, model: SegmentationModel) -> set[str]:
    """Return the names of an auxiliary classifier that the model does not have."""
    names = {name for name in tensors if name.startswith("aux_classifier.")}
    return names - model.state_dict().keys()


def _class_names(
    given: Sequence[str] | None, header: ModelHeader | None, num_classes: int, *, where: Path
) -> tuple[str, ...]:
    names = tuple(f"class{index}" for index in range(num_classes))
    if given:
        names = tuple(given)
    elif header is not None:
        names = header.class_names
    if len(names) != num_classes:
        raise CheckpointError(
            f"{where}: predicts {num_classes} classes, but {len(names)} class names are given"
        )
    return names


def _extra(file: Path, header: ModelHeader | None) -> dict[str, str]:
    extra = {"imported_from_sha256": model_hash(file)}
    if header is not None:
        extra |= header.extra
    return extra


def _stride_from(given: int | None, header: ModelHeader | None) -> StrideFrom:
    if given:
        return "given"
    if header is not None:
        return "header"
    return "assumed"


def _num_missing_counters(model: SegmentationModel, tensors: Tensors) -> int:
    counters = {name for name in model.state_dict() if name.endswith(_COUNTER)}
    return len(counters - tensors.keys())


def _left_out(content: Content, taken: Tensors, auxiliary: set[str]) -> dict[str, tuple[str, ...]]:
    held = content.tensors
    duplicates = [name for name in held if name not in taken and name not in auxiliary]
    different = [
        name
        for name, tensor in held.items()
        if name in taken and not torch.equal(tensor, taken[name])
    ]
    groups = {
        "beside the weights": content.beside,
        "auxiliary classifier": [name for name in held if name in auxiliary],
        "duplicates of the backbone's halves": duplicates,
        "values of duplicates that differ (the last one stands, as in the release)": different,
    }
    return {reason: tuple(names) for reason, names in groups.items() if names}


def _fill(model: SegmentationModel, tensors: Tensors, *, where: str, classes: int) -> Gates:
    """Fill the model and return the gates, after checking both. Raises Misfit."""
    gates = gates_among(tensors)
    needed = shapes_of(model.state_dict())
    needed_by_gates = dict[str, Sequence[int]]()
    if gates:
        channels = model.tap_channels()
        # a gate at a location that the network does not have is reported as unexpected
        gates = {
            location: gate for location, gate in gates.items() if _GATED_TAPS[location] in channels
        }
        for location, gate in gates.items():
            shapes = gate_shapes(gate, channels[_GATED_TAPS[location]])
            for name, shape in shapes.items():
                needed_by_gates[f"{location}.cbam.{name}"] = shape
    check_fit(needed | needed_by_gates, tensors, where=where, num_classes=classes)
    own = {name: tensor for name, tensor in tensors.items() if name in needed}
    fill(model, own, where=where)
    return gates


def _with_locations(gates: Gates) -> dict[str, Tensor]:
    """Return the gates' tensors by their released names."""
    return {
        f"{location}.cbam.{name}": tensor
        for location, gate in gates.items()
        for name, tensor in gate.items()
    }
