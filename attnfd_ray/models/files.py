"""Weights in files: what we write (safetensors, self-describing) and what we can read (ours,
torch's, the released).

Nothing here runs code from a file. A file is written aside and put in place whole, so a reader
never sees half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
import safetensors.torch
from pydantic import Field
from torch import Tensor, nn

from attnfd_ray.config.schema import ModelSettings, StrictModel
from attnfd_ray.errors import CheckpointError, StoreError
from attnfd_ray.models.tensors import few, fill, is_safetensors, read_tensors, readable

HEADER_KEY = "attnfd_ray"
CBAM_LOCATIONS = ("backbone", "aspp", "decoder")
# the released MobileNet registers every block twice: whole, and again in one of two halves under
# the same numbers
MOBILENET_HALVES = re.compile(r"^backbone\.(low|high)_level_features\.")


class ModelHeader(StrictModel):
    """What a saved network says of itself: enough to build it again, and to name what it
    predicts.
    """

    version: Literal[1] = 1
    settings: ModelSettings
    num_classes: Annotated[int, Field(ge=1, le=65_535)]
    class_names: tuple[str, ...]
    extra: dict[str, str] = {}


def save_model(
    model: nn.Module,
    path: Path,
    *,
    settings: ModelSettings,
    num_classes: int,
    class_names: Sequence[str],
    extra: Mapping[str, str],
    beside: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the tensors of `model` and a `ModelHeader` to a safetensors file; equal content gives
    equal bytes.

    `beside` are tensors to keep that are not the network's: the attention gates of an imported
    teacher, by their released names.
    """
    header = ModelHeader(
        settings=settings,
        num_classes=num_classes,
        class_names=tuple(class_names),
        extra=dict(extra),
    )
    # contiguous, because a channels_last model's tensors are not and safetensors refuses them
    kept = {**model.state_dict(), **(beside or {})}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in kept.items()}
    # a single key: safetensors writes several in no fixed order
    content = safetensors.torch.save(tensors, metadata={HEADER_KEY: header.model_dump_json()})
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        aside.unlink(missing_ok=True)


def read_header(path: Path, *, own_parts: bool = True) -> ModelHeader | None:
    """Return what the file says of itself, or None for a file that is not one of ours.

    A part of someone's own that its settings name (`package.module:Attribute`) is imported, to know
    that it is there; with `own_parts` off it is not, and CheckpointError says so.
    """
    if not is_safetensors(readable(path)):
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
        header = None if text is None else json.loads(text)
        named = [] if own_parts else _own_parts(header)
        if not named:
            return None if header is None else ModelHeader.model_validate(header)
    except (
        safetensors.SafetensorError,
        ValueError,
    ) as error:  # pydantic's ValidationError is a ValueError
        first = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: its header cannot be read, is it of a newer version? ({first})"
        ) from None
    raise CheckpointError(
        f"{path}: its header names code of someone's own ({few(named)}), which is not run on a "
        "file's word; "
        "if you trust it, use the file as it is: it is in our format"
    )


def _own_parts(header: Any) -> list[str]:
    """Return the parts that a header's settings name as `package.module:Attribute`."""
    settings = header.get("settings") if isinstance(header, Mapping) else None
    values = settings.items() if isinstance(settings, Mapping) else ()
    return [
        value
        for name, value in values
        if isinstance(value, str) and ":" in value and name != "pretrained"
    ]


def load_weights(model: nn.Module, path: Path, *, num_classes: int) -> None:
    """Fill `model` from our file, a torch file or a released one, whose CBAM and duplicate names
    fall away.

    Strict about everything else: CheckpointError, in one line, says what is missing, unexpected or
    of another shape, and whether the file was only made for another number of classes than
    `num_classes`.
    """
    tensors = {name: tensor for name, tensor in read_tensors(path).items() if ".cbam." not in name}
    fill(model, without_halves(tensors), where=path, num_classes=num_classes)


def without_halves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a released MobileNet once each.

    Duplicates are equal in any trained file; should they differ, the later one wins, as it does in
    the release.
    """
    return {
        MOBILENET_HALVES.sub("backbone.features.", name): tensor for name, tensor in tensors.items()
    }


def cbam_state(path: Path) -> dict[str, dict[str, Tensor]]:
    """Return the attention gates of a file, see `gates_among`."""
    return gates_among(read_tensors(path))


def gates_among(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the CBAM tensors of a released file: location (backbone, aspp, decoder) -> name within
    the CBAM -> tensor.

    A location without any is left out; a file without any gives {}.
    """
    gates = {
        location: {
            name.removeprefix(f"{location}.cbam."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{location}.cbam.")
        }
        for location in CBAM_LOCATIONS
    }
    return {location: gate for location, gate in gates.items() if gate}


def model_hash(path: Path) -> str:
    """Return the SHA-256 of the file, in hex."""
    with readable(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
