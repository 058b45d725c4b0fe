"""The first weights of a network: `pretrained: imagenet`, or a file, which is known by its hash.

What a file holds is data: no code of it runs.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from attnfd_ray import registry
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import CheckpointError
from attnfd_ray.models.base import SegmentationModel
from attnfd_ray.models.files import model_hash
from attnfd_ray.models.fitting import fit
from attnfd_ray.models.imagenet import Source
from attnfd_ray.models.tensors import Misfit, few, read_content

DIGITS = 16  # of a SHA-256: enough to tell files apart

log = logging.getLogger(__name__)


def load_first_weights(model: SegmentationModel, settings: ModelSettings) -> None:
    """Fill `model` with the weights that `settings.pretrained` stands for, and say what was taken
    (`first_weights`).

    Raises ConfigError where there are no ImageNet weights; CheckpointError, in one line, for a file
    that is out of reach, of another network or width, a pickle that runs code, or not the file of
    `pretrained_sha256`.
    """
    path = weights_file(settings)
    check_hash(settings, path)
    content = read_content(path)
    try:
        found = fit(model, content.tensors, where=path)
    except Misfit as error:
        width = "" if settings.width == 1 else f" at width {settings.width:g}"
        raise CheckpointError(
            f"{error}; needed are weights of {settings.backbone}{width}, or of the whole "
            f"{settings.arch}; "
            "give another file, or set pretrained: none"
        ) from None
    model.load_state_dict(found.tensors, strict=False)
    left_out = found.left_out | ({"beside the weights": content.beside} if content.beside else {})
    rest = "; ".join(f"{why}: {len(names)} ({few(names)})" for why, names in left_out.items())
    model.first_weights = f"{path}: {len(found.tensors)} tensors taken for the {found.part}" + (
        f", left out {rest}" if rest else ""
    )
    log.info("%s", model.first_weights)


def weights_file(settings: ModelSettings) -> Path:
    """Return the file that `settings.pretrained` stands for, downloaded if need be; raises as
    `load_first_weights`.
    """
    if settings.pretrained == "imagenet":
        return _wanted(settings, _source(settings).obtain())
    return _readable(Path(settings.pretrained))


def check_within_reach(settings: ModelSettings) -> None:
    """Raise, as `load_first_weights` would on this machine, unless the weights are here or can be
    downloaded.
    """
    if settings.pretrained != "imagenet":
        path: Path | None = _readable(Path(settings.pretrained))
    else:
        source = _source(settings)
        source.check()
        here = source.found()
        path = _wanted(settings, here) if here else None
    if path is not None:
        check_hash(settings, path)


def pinned(settings: ModelSettings) -> ModelSettings:
    """Return the settings with the hash of the file that `pretrained` stands for, unless they name
    one already.
    """
    if settings.pretrained == "none" or settings.pretrained_sha256:
        return settings
    return settings.model_copy(update={"pretrained_sha256": file_hash(weights_file(settings))})


def check_hash(settings: ModelSettings, path: Path) -> None:
    """Raise CheckpointError unless the file has the hash that the settings name, if they name
    one.
    """
    wanted = settings.pretrained_sha256
    if wanted and (here := file_hash(path)) != wanted:
        raise CheckpointError(
            f"{path} on {socket.gethostname()}: its SHA-256 begins with {here}, pretrained_sha256 "
            f"is {wanted}: not the "
            "file that the experiment began with; put that one back, or begin another experiment"
        )


def file_hash(path: Path) -> str:
    """Return the first 16 hex digits of a file's SHA-256, read again only if its size or time have
    changed.
    """
    status = path.stat()
    return _hash(path, status.st_size, status.st_mtime_ns)


@cache
def _hash(path: Path, size: int, mtime_ns: int) -> str:
    return model_hash(path)[:DIGITS]


def _wanted(settings: ModelSettings, paths: Sequence[Path]) -> Path:
    """Return the file of `pretrained_sha256` if it is among them, else the first."""
    wanted = settings.pretrained_sha256
    return next((path for path in paths if wanted and file_hash(path) == wanted), paths[0])


def _source(settings: ModelSettings) -> Source:
    part = registry.load("arch", settings.arch)
    source: Source = getattr(part, "imagenet", SegmentationModel.imagenet)(settings)
    return source


def _readable(path: Path) -> Path:
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise CheckpointError(
            f"pretrained: {path} cannot be read on {socket.gethostname()} ({error.strerror}); put "
            "it there, on every "
            "node or on a disk that all share, or set pretrained: none"
        ) from None
