"""Reads tensors from untrusted files, and copies them into a module strictly.

Reading never runs code from the file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from attnfd_ray.errors import CheckpointError

Tensors = Mapping[str, Tensor]  # by name, as in a state dict


class Misfit(CheckpointError):
    """Tensors that do not fit a module.

    The message names the first few; `missing`, `unexpected` and `reshaped` name all of them.
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
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.reshaped = tuple(reshaped)


class Content(NamedTuple):
    """The content of a file of weights.

    `beside` are the names of other entries next to the tensors, such as epoch and optimizer.
    """

    tensors: dict[str, Tensor]
    beside: tuple[str, ...]


def is_safetensors(path: Path) -> bool:
    """Return whether a file has safetensors' format: eight bytes of length, then a JSON object."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors or torch file, see `read_content`."""
    return read_content(path).tensors


def read_content(path: Path) -> Content:
    """Return the content of a safetensors or torch file.

    Tensors are on the CPU and without `module.` prefixes. A torch file holds its state dict bare,
    or under `state_dict` or `model`. Raises CheckpointError, in one line, for a file that is
    missing, truncated, no state dict, or a pickle with more than tensors and numbers.
    """
    path = readable(path)
    try:
        content = _load(path)
    except Exception as error:  # noqa: BLE001  (bytes that are no pickle make the unpickler raise nearly anything)
        raise CheckpointError(f"{path}: {_reason(error)}") from None
    beside: tuple[str, ...] = ()
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            beside = tuple(str(other) for other in content if other != key)
            content = content[key]
            break
    if not _is_state_dict(content):
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


def _is_state_dict(content: Any) -> bool:
    if not isinstance(content, Mapping) or not content:
        return False
    return all(isinstance(value, Tensor) for value in content.values())


def readable(path: Path) -> Path:
    """Return `path`. Raises CheckpointError if it is no file that can be opened."""
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def _load(path: Path) -> Any:
    if is_safetensors(path):
        return safetensors.torch.load_file(path)
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
    # torch warns of files that are not its own archives before it refuses them
    with torch.serialization.safe_globals(allowed), warnings.catch_warnings(action="ignore"):
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    """Return in one line what is wrong with a file.

    torch's own text has many lines and advises to turn the protection off.
    """
    asked = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", str(error))
    if asked:
        return (
            f"asks for '{asked[1]}', which could run code, so it was not loaded; save its "
            "state_dict() alone"
        )
    return "cannot be read as weights: cut short, or not a file that torch or safetensors wrote"


def fill(
    module: nn.Module,
    tensors: Tensors,
    *,
    where: Path | str,
    num_classes: int | None = None,
) -> None:
    """Copy `tensors` into `module`, all of them or none. Raises as `check_fit` does."""
    needed = shapes_of(module.state_dict())
    check_fit(needed, tensors, where=where, num_classes=num_classes)
    module.load_state_dict(dict(tensors), strict=False)


def check_fit(
    wanted: Mapping[str, Sequence[int]],
    tensors: Tensors,
    *,
    where: Path | str,
    num_classes: int | None = None,
) -> None:
    """Raise Misfit unless `tensors` have exactly the `wanted` names and shapes.

    BatchNorm's `num_batches_tracked` may be missing, as in files from before torch 0.4.1. The
    message starts with `where`, counts what does not fit and names the first few. With
    `num_classes` it also mentions where only the numbers of classes differ.
    """
    missing = [
        name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in tensors if name not in wanted]
    shapes = {
        name: _Shapes(tuple(tensors[name].shape), tuple(needed))
        for name, needed in wanted.items()
        if name in tensors
    }
    different = {name: pair for name, pair in shapes.items() if pair.given != pair.needed}
    reshaped = [
        f"{name} {list(pair.given)} here, {list(pair.needed)} needed"
        for name, pair in different.items()
    ]
    groups = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    problems = [f"{len(names)} {what} ({few(names)})" for what, names in groups.items() if names]
    if problems:
        hint = _class_hint(list(different.values()), num_classes)
        raise Misfit(
            f"{where}: {', '.join(problems)}{hint}",
            missing=missing,
            unexpected=unexpected,
            reshaped=reshaped,
        )


class _Shapes(NamedTuple):
    """The shape of a tensor in a file, and the one that the module needs."""

    given: tuple[int, ...]
    needed: tuple[int, ...]


def shapes_of(tensors: Tensors) -> dict[str, Sequence[int]]:
    """Return the shapes of tensors by their names."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def without(tensors: Tensors, names: Collection[str]) -> dict[str, Tensor]:
    """Return the tensors whose names are not among `names`."""
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def in_order(tensors: Tensors, like: Tensors) -> dict[str, Tensor]:
    """Return the tensors under the names of `like`, in the same order.

    For libraries that define the same network in the same order under other names. The names are
    unchanged unless all last words and shapes agree.
    """
    names = like
    if _kinds(tensors) != _kinds(like):
        names = tensors
    return dict(zip(names, tensors.values(), strict=True))


def _kinds(tensors: Tensors) -> list[tuple[str, tuple[int, ...]]]:
    kinds = []
    for name, tensor in tensors.items():
        last_word = name.rpartition(".")[2]
        kinds.append((last_word, tuple(tensor.shape)))
    return kinds


def few(words: Sequence[str]) -> str:
    """Return the first three words of a list that may be long."""
    text = ", ".join(words[:3])
    if len(words) > 3:
        text += ", ..."
    return text


def _class_hint(shapes: Sequence[_Shapes], num_classes: int | None) -> str:
    """Return a hint where shapes differ by nothing but the number of classes."""
    others = {pair.given[0] for pair in shapes if _is_of_classes(pair, num_classes)}
    if len(others) != 1 or not all(_is_of_classes(pair, num_classes) for pair in shapes):
        return ""
    return f"; it was made for {others.pop()} classes, not {num_classes}"


def _is_of_classes(shapes: _Shapes, num_classes: int | None) -> bool:
    given = shapes.given
    return len(given) > 0 and shapes.needed == (num_classes, *given[1:])
