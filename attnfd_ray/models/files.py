"""Weights in files: what we write (safetensors, self-describing) and what we can read (ours, torch's, the released).

Nothing here runs code from a file. A file is written aside and put in place whole, so a reader never sees half of one.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
from pydantic import ValidationError
from torch import Tensor, nn

from attnfd_ray.config.schema import ModelSettings, Record
from attnfd_ray.errors import CheckpointError, StoreError
from attnfd_ray.models.tensors import fill, is_safetensors, read_tensors, readable

HEADER_KEY = "attnfd_ray"
CBAM_LOCATIONS = ("backbone", "aspp", "decoder")
# the released MobileNet registers every block twice: whole, and again in one of two halves under the same numbers
MOBILENET_HALVES = re.compile(r"^backbone\.(low|high)_level_features\.")


class ModelHeader(Record):
    """What a saved network says of itself: enough to build it again, and to name what it predicts."""

    version: Literal[1] = 1
    settings: ModelSettings
    num_classes: int
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
) -> None:
    """Write the tensors of `model` and a `ModelHeader` to a safetensors file; equal content gives equal bytes."""
    header = ModelHeader(settings=settings, num_classes=num_classes, class_names=tuple(class_names), extra=dict(extra))
    # contiguous, because a channels_last model's tensors are not and safetensors refuses them
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
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


def read_header(path: Path) -> ModelHeader | None:
    """Return what the file says of itself, or None for a file that is not one of ours."""
    if not is_safetensors(readable(path)):
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
        return None if text is None else ModelHeader.model_validate_json(text)
    except (safetensors.SafetensorError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: its header cannot be read, is it of a newer version? ({first})") from None


def load_weights(model: nn.Module, path: Path, *, num_classes: int) -> None:
    """Fill `model` from our file, a torch file or a released one, whose CBAM and duplicate names fall away.

    Strict about everything else: CheckpointError, in one line, says what is missing, unexpected or of another shape,
    and whether the file was only made for another number of classes than `num_classes`.
    """
    # duplicates are equal in any trained file; should they differ, the later one wins, as it does in the release
    tensors = {
        MOBILENET_HALVES.sub("backbone.features.", name): tensor
        for name, tensor in read_tensors(path).items()
        if ".cbam." not in name
    }
    fill(model, tensors, where=path, num_classes=num_classes)


def cbam_state(path: Path) -> dict[str, dict[str, Tensor]]:
    """Return the CBAM tensors of a released file: location (backbone, aspp, decoder) -> name within the CBAM -> tensor.

    A location without any is left out; a file without any gives {}.
    """
    tensors = read_tensors(path)
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
