"""Networks from outside in our format: the released DeepLabV3+ with or without CBAM, torchvision's
DeepLabV3, our own.

A file is data: no code of it runs, no module it names is imported. What is in it ends in the new
file, or is said to be left out, or stops the import; nothing is skipped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import CheckpointError, StoreError
from attnfd_ray.models import SegmentationModel, build_model
from attnfd_ray.models.files import (
    CBAM_LOCATIONS,
    gates_among,
    model_hash,
    read_header,
    save_model,
    without_halves,
)
from attnfd_ray.models.gate_probe import GateReport, gate_shapes, probe_gate
from attnfd_ray.models.identify import Recognised, recognise, valid_settings
from attnfd_ray.models.tensors import Content, check_fit, few, fill, read_content

_GATED_TAPS = dict(zip(CBAM_LOCATIONS, ("stage4", "aspp", "decoder"), strict=True))
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What was taken from a file, and what was not."""

    settings: ModelSettings
    class_names: tuple[str, ...]
    stride_from: Literal["given", "header", "assumed"]
    num_tensors: int
    num_counters_added: int
    """BatchNorm's `num_batches_tracked`, which files from before torch 0.4.1 lack; they start at 0."""
    left_out: dict[str, tuple[str, ...]]
    """Why -> names."""
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
    """Write the network of `file` to `out` in our format, its attention gates beside it, and say
    what was taken.

    What is not given is told from our header, else from names and shapes; the output stride, which
    no tensor tells, is then 16 (torchvision's: 8), and the classes are class0, class1, ...
    CheckpointError for a file that cannot be read or does not fit (a `Misfit` lists every tensor
    that does not), StoreError if `out` is there or cannot be written.
    """
    if out.exists():
        raise StoreError(f"{out}: there already; move it away or give another name")
    content, header = read_content(file), read_header(file, own_parts=False)
    _check_values(content.tensors, file)
    tensors = without_halves(content.tensors)
    if header:
        told = Recognised(settings=header.settings.model_dump(), num_classes=header.num_classes)
    else:
        told = recognise(tensors, where=file, backbone=backbone)
    given = {"backbone": backbone, "output_stride": output_stride}
    settings = valid_settings(
        told.settings | {name: value for name, value in given.items() if value}
    )
    count = num_classes or told.num_classes
    # the weights are in the file: whatever the first ones were, they need not be fetched
    model = build_model(settings.model_copy(update={"pretrained": "none"}), num_classes=count)
    auxiliary = {
        name for name in tensors if name.startswith("aux_classifier.")
    } - model.state_dict().keys()
    tensors = {name: tensor for name, tensor in tensors.items() if name not in auxiliary}
    gates = _fill(
        model,
        tensors,
        where=file if header else f"{file}: read as {described(settings)}",
        classes=count,
    )
    names = tuple(
        class_names
        or (header.class_names if header else [f"class{index}" for index in range(count)])
    )
    if len(names) != count:
        raise CheckpointError(
            f"{file}: predicts {count} classes, but {len(names)} class names are given"
        )

    reports = tuple(probe_gate(location, gate) for location, gate in gates.items())
    kept = {
        f"{location}.cbam.{name}": tensor
        for location, gate in gates.items()
        for name, tensor in gate.items()
    }
    extra = {"imported_from_sha256": model_hash(file)} | (header.extra if header else {})
    save_model(
        model,
        out,
        settings=settings,
        num_classes=count,
        class_names=names,
        extra=extra,
        beside=kept,
    )
    return Imported(
        settings=settings,
        class_names=names,
        stride_from="given" if output_stride else "header" if header else "assumed",
        num_tensors=len(tensors) - len(kept),
        num_counters_added=sum(
            name.endswith(_COUNTER) and name not in tensors for name in model.state_dict()
        ),
        left_out=_left_out(content, tensors, auxiliary),
        gates=reports,
    )


def described(settings: ModelSettings) -> str:
    """Return a network's settings in a few words."""
    width = "" if settings.width == 1 else f" at width {settings.width:g}"
    return f"{settings.arch} with {settings.backbone}{width}"


def _check_values(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Refuse values that no network computes with."""
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_complex() or not tensor.double().isfinite().all()
    ]
    if bad:
        raise CheckpointError(
            f"{file}: {len(bad)} tensors hold values that are no finite numbers ({few(bad)})"
        )


def _left_out(
    content: Content, taken: Mapping[str, Tensor], auxiliary: set[str]
) -> dict[str, tuple[str, ...]]:
    held = content.tensors.items()
    groups = {
        "beside the weights": list(content.beside),
        "auxiliary classifier": [name for name, _ in held if name in auxiliary],
        "duplicates of the backbone's halves": [
            name for name, _ in held if name not in taken.keys() | auxiliary
        ],
        "values of duplicates that differ (the last one stands, as in the release)": [
            name for name, tensor in held if name in taken and not torch.equal(tensor, taken[name])
        ],
    }
    return {reason: tuple(names) for reason, names in groups.items() if names}


def _fill(
    model: SegmentationModel, tensors: Mapping[str, Tensor], *, where: Path | str, classes: int
) -> dict[str, dict[str, Tensor]]:
    """Fill the model and return the gates by location, after checking all of it; raises Misfit."""
    gates = gates_among(tensors)
    channels = model.tap_channels() if gates else {}
    # a gate where the network has no such place is left to be found unexpected
    gates = {place: gate for place, gate in gates.items() if _GATED_TAPS[place] in channels}
    wanted: dict[str, Sequence[int]] = {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }
    of_gates = {
        f"{place}.cbam.{name}": shape
        for place, gate in gates.items()
        for name, shape in gate_shapes(gate, channels[_GATED_TAPS[place]]).items()
    }
    check_fit(wanted | of_gates, tensors, where=where, num_classes=classes)
    fill(model, {name: tensor for name, tensor in tensors.items() if name in wanted}, where=where)
    return gates
