"""`attnfd-ray teacher`: imports a teacher's weights from a file of another project."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from attnfd_ray.errors import CheckpointError, ConfigError, one_line

if TYPE_CHECKING:
    from attnfd_ray.models.gate_probe import GateReport
    from attnfd_ray.models.importing import Imported

_STRIDES: dict[str | None, Literal[8, 16] | None] = {None: None, "8": 8, "16": 16}


@click.group("teacher")
def teacher() -> None:
    """Import a teacher from elsewhere."""


@teacher.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="The safetensors file to write.",
)
@click.option(
    "--backbone",
    metavar="NAME",
    help="The backbone. By default, it is recognised by the names of the weights.",
)
@click.option(
    "--output-stride",
    type=click.Choice(["8", "16"]),
    help="The output stride, which the weights do not show. By default 16; 8 for torchvision's.",
)
@click.option(
    "--classes",
    type=click.IntRange(1, 65_535),
    metavar="N",
    help="The number of classes. By default, that of the classifier.",
)
@click.option(
    "--class-names",
    metavar="NAMES",
    type=click.Path(path_type=Path),
    help="A file with the name of one class per line.",
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="Take the class names of this dataset, as in --dataset voc.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON document, with every name that does not fit.",
)
def import_(
    file: Path,
    out: Path,
    backbone: str | None,
    output_stride: str | None,
    classes: int | None,
    class_names: Path | None,
    dataset: str | None,
    as_json: bool,
) -> None:
    """Write the network in FILE to OUT, for `teacher: {checkpoint: OUT}`.

    FILE is a checkpoint of AttnFD's authors or of another DeepLabV3+ with the same names,
    torchvision's DeepLabV3, or a file of attnfd-ray. No code in it is run. Attention gates are
    kept, and it is printed whether they look trained.
    """
    if sum(given is not None for given in (classes, class_names, dataset)) > 1:
        raise click.UsageError(
            "--classes, --class-names and --dataset exclude each other: give one of them"
        )
    from attnfd_ray.models.importing import import_network
    from attnfd_ray.models.tensors import Misfit

    try:
        imported = import_network(
            file,
            out,
            backbone=backbone,
            output_stride=_STRIDES[output_stride],
            num_classes=classes,
            class_names=_class_names(class_names, dataset),
        )
    except Misfit as error:
        if as_json:
            document = {
                "error": str(error),
                "missing": error.missing,
                "unexpected": error.unexpected,
                "reshaped": error.reshaped,
            }
            click.echo(json.dumps(document))
        raise
    if as_json:
        click.echo(json.dumps(_document(file, out, imported)))
    else:
        for line in _lines(file, out, imported):
            click.echo(one_line(line))


def _class_names(file: Path | None, dataset: str | None) -> list[str] | None:
    """Return the class names of a file or of a dataset, None if neither is given."""
    if dataset is not None:
        return _names_of_dataset(dataset)
    if file is not None:
        return _names_in_file(file)
    return None


def _names_of_dataset(dataset: str) -> list[str]:
    from attnfd_ray import registry

    names = getattr(registry.load("dataset", dataset), "class_names", None)
    if names is None:
        raise ConfigError(f"dataset '{dataset}' has no class_names; give --class-names")
    return list(names)


def _names_in_file(file: Path) -> list[str]:
    needed = "needed is the name of one class per line"
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise CheckpointError(f"{file}: is not text in UTF-8; {needed}") from None
    names = names or [""]  # an empty file is an empty first line
    if "" in names:
        raise CheckpointError(f"{file}:{names.index('') + 1}: is empty; {needed}")
    return names


def _document(file: Path, out: Path, imported: Imported) -> dict[str, Any]:
    return {
        "file": str(file),
        "out": str(out),
        "model": imported.settings.model_dump(mode="json"),
        "output_stride_from": imported.stride_from,
        "num_classes": len(imported.class_names),
        "class_names": imported.class_names,
        "num_tensors": imported.num_tensors,
        "num_counters_added": imported.num_counters_added,
        "left_out": imported.left_out,
        "gates": [dataclasses.asdict(gate) for gate in imported.gates],
    }


def _lines(file: Path, out: Path, imported: Imported) -> list[str]:
    from attnfd_ray.models.importing import described
    from attnfd_ray.models.tensors import few

    stride = f"output stride {imported.settings.output_stride}"
    if imported.stride_from == "assumed":
        stride += " (assumed: --output-stride)"
    lines = [
        f"{file}: {described(imported.settings)}, {stride}",
        f"classes:  {len(imported.class_names)} ({few(imported.class_names)})",
        f"taken:    {imported.num_tensors} tensors",
    ]
    if imported.num_counters_added:
        lines.append(f"added:    {imported.num_counters_added} counters num_batches_tracked, at 0")
    for reason, names in imported.left_out.items():
        lines.append(f"left out: {reason}: {len(names)} ({few(names)})")
    lines += [_gate_line(gate) for gate in imported.gates]
    return [*lines, f"written:  {out}"]


def _gate_line(gate: GateReport) -> str:
    from attnfd_ray.models.gate_probe import BORN_SPATIAL_STDS, FLATNESS_LIMIT

    initial_stds = " or ".join(f"{std:.3f}" for std in BORN_SPATIAL_STDS)
    batches_seen: object = gate.batches_seen
    if batches_seen is None:
        batches_seen = "unknown"
    return (
        f"gate:     {gate.location} kept, looks {gate.verdict}: "
        f"max|w| {_pair(gate.bound_ratios)} of the initial bound, "
        f"distance from flat {_pair(gate.flatness)} (initial: below {FLATNESS_LIMIT:g}), "
        f"spatial std {gate.spatial_std:.3g} (initial: {initial_stds}), "
        f"BatchNorm weight {gate.norm_weight:g}, bias {gate.norm_bias:g}, "
        f"batches seen {batches_seen}"
    )


def _pair(values: tuple[float, float]) -> str:
    return " and ".join(f"{value:.3g}" for value in values)
