"""Weights in files: writes self-describing safetensors; reads ours, torch's and the released ones.

No code from a file is run, and files are written atomically.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
import safetensors.torch
from pydantic import Field
from torch import Tensor, nn

from attnfd_ray.atomic import write_atomic
from attnfd_ray.config.base import StrictModel
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import CheckpointError, StoreError
from attnfd_ray.models.base import SegmentationModel
from attnfd_ray.models.tensors import (
    Tensors,
    few,
    fill,
    is_safetensors,
    read_tensors,
    readable,
)

Gates = dict[str, dict[str, Tensor]]  # location -> name within the gate -> tensor

HEADER_KEY = "attnfd_ray"
CBAM_LOCATIONS = ("backbone", "aspp", "decoder")
# the released MobileNet registers every block twice: in the whole, and in one of two halves under
# the same numbers
MOBILENET_HALVES = re.compile(r"^backbone\.(low|high)_level_features\.")


class ModelHeader(StrictModel):
    """The description of a network in its own file: how to build it, and the classes' names.

    `extra` holds whatever else the writer stored, as text.
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
    beside: Tensors | None = None,
) -> None:
    """Write the tensors of `model` and a `ModelHeader` to a safetensors file.

    Missing directories are created, and a file of that name is replaced. Equal content gives equal
    bytes. `beside` are further tensors to keep, such as the attention gates of an imported teacher
    under their released names. Raises StoreError where the file cannot be written.

    >>> import tempfile
    >>> import torch
    >>> from attnfd_ray.models import build_model, load_student, read_header, save_model
    >>> settings = ModelSettings(backbone="resnet18", width=0.125)
    >>> student = build_model(settings, num_classes=2)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory) / "student.safetensors"
    ...     save_model(
    ...         student,
    ...         path,
    ...         settings=settings,
    ...         num_classes=2,
    ...         class_names=["road", "sky"],
    ...         extra={"miou": "0.61"},
    ...     )
    ...     header = read_header(path)
    ...     again = load_student(path)
    >>> header.class_names, header.extra
    (('road', 'sky'), {'miou': '0.61'})
    >>> torch.equal(again.aspp.conv1.weight, student.aspp.conv1.weight)
    True
    """
    header = ModelHeader(
        settings=settings,
        num_classes=num_classes,
        class_names=tuple(class_names),
        extra=dict(extra),
    )
    # contiguous, because a channels_last model's tensors are not and safetensors refuses them
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in [*model.state_dict().items(), *(beside or {}).items()]
    }
    # a single key: safetensors writes several in no fixed order
    content = safetensors.torch.save(tensors, metadata={HEADER_KEY: header.model_dump_json()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from None


def read_header(path: Path, *, own_parts: bool = True) -> ModelHeader | None:
    """Return the header of one of our files, or None for any other file.

    A user's own part that its settings name (`package.module:Attribute`) is imported, to check that
    it exists. With `own_parts` off such a header is refused and nothing is imported. Raises
    CheckpointError for a file or a header that cannot be read or is refused.
    """
    if not is_safetensors(readable(path)):
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
        if text is None:
            return None
        header = json.loads(text)
        named = _own_parts(header)
        if own_parts or not named:
            return ModelHeader.model_validate(header)
    # pydantic's ValidationError is a ValueError
    except (safetensors.SafetensorError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: its header cannot be read, is it of a newer version? ({first})"
        ) from None
    raise CheckpointError(
        f"{path}: its header names a user's own code ({few(named)}), which is not run unless you "
        "allow it; if you trust it, use the file as it is (it is in our format), or load it with "
        "own_code=True"
    )


def _own_parts(header: Any) -> list[str]:
    """Return the parts that a header's settings name as `package.module:Attribute`."""
    if not isinstance(header, Mapping):
        return []
    settings = header.get("settings")
    if not isinstance(settings, Mapping):
        return []
    texts = {name: value for name, value in settings.items() if isinstance(value, str)}
    texts.pop("pretrained", None)  # a path may contain a colon
    return [value for value in texts.values() if ":" in value]


def load_weights(model: nn.Module, path: Path, *, num_classes: int) -> None:
    """Fill `model` from one of our files, a torch file or a released one.

    The CBAM tensors and duplicate names of released files are dropped. Every other name and shape
    must fit, else nothing is copied and CheckpointError is raised. Its one line names what is
    missing, unexpected or of another shape. It adds where the file was only made for a number of
    classes other than `num_classes`.
    """
    tensors = without_halves(read_tensors(path))
    without_gates = {name: tensor for name, tensor in tensors.items() if ".cbam." not in name}
    fill(model, without_gates, where=path, num_classes=num_classes)


def load_student(file: str | Path, *, own_code: bool = False) -> SegmentationModel:
    """Return the network of one of our files, such as a run's `best.safetensors`, in eval mode.

    The file alone is enough: its header has the network's settings. A network that is a user's own
    code (`package.module:Class`) is imported only with `own_code`. Raises CheckpointError for a
    file that attnfd-ray did not write, or that cannot be read or is refused. See `save_model` for
    an example.
    """
    from attnfd_ray.models import build_model  # which imports this module

    path = Path(file)
    header = read_header(path, own_parts=own_code)
    if header is None:
        raise CheckpointError(f"{path}: is not a file of weights that attnfd-ray wrote")
    settings = header.settings.model_copy(update={"pretrained": "none"})
    model = build_model(settings, num_classes=header.num_classes)
    load_weights(model, path, num_classes=header.num_classes)
    return model.eval()


def without_halves(tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors of a released MobileNet once each.

    Duplicates are equal in any trained file. Should they differ, the later one wins, as in the
    released code.
    """
    return {
        MOBILENET_HALVES.sub("backbone.features.", name): tensor for name, tensor in tensors.items()
    }


def cbam_state(path: Path) -> Gates:
    """Return the attention gates of a file, see `gates_among`."""
    return gates_among(read_tensors(path))


def gates_among(tensors: Tensors) -> Gates:
    """Return the CBAM tensors of a released file by location, then by name within the CBAM.

    Locations are backbone, aspp and decoder; those without a gate are left out.
    """
    gates: Gates = {}
    for location in CBAM_LOCATIONS:
        prefix = f"{location}.cbam."
        for name, tensor in tensors.items():
            if name.startswith(prefix):
                gates.setdefault(location, {})[name.removeprefix(prefix)] = tensor
    return gates


def model_hash(path: Path) -> str:
    """Return the SHA-256 of the file, 64 hex digits. Raises CheckpointError if it is unreadable."""
    with readable(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
