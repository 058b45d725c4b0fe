"""Tensors out of a file nobody vouches for, and into a module strictly. Reading never runs code
from the file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from attnfd_ray.errors import CheckpointError


class Misfit(CheckpointError):
    """Tensors that are not those of the module: the message names the first few, the lists name
    them all.
    """

    def __init__(
        self,
        text: str,
        *,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        reshaped: Sequence[str] = (),
    ) -> None:
        super().__init__(text)
        self.missing, self.unexpected, self.reshaped = (
            tuple(missing),
            tuple(unexpected),
            tuple(reshaped),
        )


class Content(NamedTuple):
    """What a file of weights holds: the tensors by name, and the names of what lies beside them
    (epoch, optimizer).
    """

    tensors: dict[str, Tensor]
    beside: tuple[str, ...]


def is_safetensors(path: Path) -> bool:
    """Tell a safetensors file by its content: eight bytes of length, then a JSON object."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors or torch file, see `read_content`."""
    return read_content(path).tensors


def read_content(path: Path) -> Content:
    """Return what a safetensors or torch file holds, tensors on the CPU and without `module.`
    prefixes.

    A torch file holds its state dict bare, or under `state_dict` or `model`. CheckpointError, in
    one line, for a file that is missing, cut short, no state dict, or a pickle that asks for more
    than tensors and numbers.
    """
    path = readable(path)
    try:
        content: Any = (
            safetensors.torch.load_file(path) if is_safetensors(path) else _unpickle(path)
        )
    except Exception as error:  # noqa: BLE001  (bytes that are no pickle make the unpickler raise nearly anything)
        raise CheckpointError(f"{path}: {_reason(error)}") from None
    beside: tuple[str, ...] = ()
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            beside = tuple(str(other) for other in content if other != key)
            content = content[key]
            break
    if not (
        isinstance(content, Mapping)
        and content
        and all(isinstance(value, Tensor) for value in content.values())
    ):
        raise CheckpointError(
            f"{path}: holds no tensors by name, neither bare nor under 'state_dict' or 'model'"
        )
    tensors = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    if len(tensors) < len(content):
        raise CheckpointError(
            f"{path}: holds the same tensors with and without 'module.' before their names; keep "
            "one"
        )
    return Content(tensors, beside)


def readable(path: Path) -> Path:
    """Return `path` if it is a file that can be opened; raise CheckpointError otherwise."""
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def _unpickle(path: Path) -> Any:
    # released files keep their best score as a NumPy number; older NumPy wrote it under another
    # module's name
    scalar = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Float32DType,
        np.dtypes.Int64DType,
    ]
    # torch warns of files that are no archives of its own, before it refuses them
    with torch.serialization.safe_globals(allowed), warnings.catch_warnings(action="ignore"):
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    """Put what went wrong in one line; torch's own runs over many and advises to switch the safety
    off.
    """
    asked = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", str(error))
    if asked:
        return f"asks for '{asked[1]}', which could run code, so it was not loaded; save its state_dict() alone"
    return "cannot be read as weights: cut short, or not a file that torch or safetensors wrote"


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    where: Path | str,
    num_classes: int | None = None,
) -> None:
    """Copy `tensors` into `module`, all or nothing: every name, every shape; raises as `check_fit`
    does.
    """
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    check_fit(shapes, tensors, where=where, num_classes=num_classes)
    module.load_state_dict(dict(tensors), strict=False)


def check_fit(
    wanted: Mapping[str, Sequence[int]],
    tensors: Mapping[str, Tensor],
    *,
    where: Path | str,
    num_classes: int | None = None,
) -> None:
    """Raise Misfit unless `tensors` have exactly the `wanted` names and shapes.

    BatchNorm's `num_batches_tracked` may be missing, as in files from before torch 0.4.1. The
    message starts with `where`, counts what does not fit and names the first few; with
    `num_classes` it says where only those differ.
    """
    missing = [
        name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in tensors if name not in wanted]
    reshaped = [
        name
        for name in wanted
        if name in tensors and tuple(tensors[name].shape) != tuple(wanted[name])
    ]
    shapes = [(tuple(tensors[name].shape), tuple(wanted[name])) for name in reshaped]
    described = [
        f"{name} {list(here)} here, {list(needed)} needed"
        for name, (here, needed) in zip(reshaped, shapes, strict=True)
    ]
    groups = [("missing", missing), ("unexpected", unexpected), ("of another shape", described)]
    problems = [f"{len(found)} {what} ({few(found)})" for what, found in groups if found]
    if problems:
        text = f"{where}: {', '.join(problems)}{_class_hint(shapes, num_classes)}"
        raise Misfit(text, missing=missing, unexpected=unexpected, reshaped=described)


def in_order(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names of `like`, one after another; unchanged unless kinds and
    shapes all agree.

    For libraries that name the same network differently and define it in the same order.
    """

    def kinds(named: Mapping[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
        return [(name.rpartition(".")[2], tuple(tensor.shape)) for name, tensor in named.items()]

    names = like if kinds(tensors) == kinds(like) else tensors
    return dict(zip(names, tensors.values(), strict=True))


def few(words: Sequence[str]) -> str:
    """Return the first words of a list that may be long."""
    return ", ".join(words[:3]) + (", ..." if len(words) > 3 else "")


def _class_hint(
    shapes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], num_classes: int | None
) -> str:
    """Say so where (here, needed) differ by nothing but the number of classes."""
    others = [here[0] for here, needed in shapes if here and needed == (num_classes, *here[1:])]
    if len(others) != len(shapes) or len(set(others)) != 1:
        return ""
    return f"; it was made for {others[0]} classes, not {num_classes}"
