"""The first weights of a network: `pretrained: imagenet`, or a file, identified by its hash.

No code from a file is run.
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
from attnfd_ray.models.fitting import Fit, fit
from attnfd_ray.models.imagenet import Source
from attnfd_ray.models.tensors import Content, Misfit, few, read_content

DIGITS = 16  # of a SHA-256: enough to distinguish files

log = logging.getLogger(__name__)


def load_first_weights(model: SegmentationModel, settings: ModelSettings) -> None:
    """Fill `model` with the weights of `settings.pretrained`; report it in `first_weights`.

    Raises ConfigError where there are no ImageNet weights. Raises CheckpointError, in one line, for
    a file that cannot be obtained, is of another network or width, would run code, or has another
    hash than `pretrained_sha256`.
    """
    path = weights_file(settings)
    check_hash(settings, path)
    content = read_content(path)
    try:
        found = fit(model, content.tensors, where=path)
    except Misfit as error:
        width = ""
        if settings.width != 1:
            width = f" at width {settings.width:g}"
        raise CheckpointError(
            f"{error}; needed are weights of {settings.backbone}{width}, or of the whole "
            f"{settings.arch}; give another file, or set pretrained: none"
        ) from None
    model.load_state_dict(found.tensors, strict=False)
    model.first_weights = _report(path, found, content)
    log.info("%s", model.first_weights)


def _report(path: Path, found: Fit, content: Content) -> str:
    """Return a line that says what was taken from the file and what was left out."""
    text = f"{path}: {len(found.tensors)} tensors taken for the {found.part}"
    left_out = dict(found.left_out)
    if content.beside:
        left_out["beside the weights"] = content.beside
    if left_out:
        reasons = [f"{why}: {len(names)} ({few(names)})" for why, names in left_out.items()]
        text += f", left out {'; '.join(reasons)}"
    return text


def weights_file(settings: ModelSettings) -> Path:
    """Return the file that `settings.pretrained` means, downloaded if necessary.

    Raises as `load_first_weights` does.
    """
    if settings.pretrained == "imagenet":
        return _wanted(settings, _source(settings).obtain())
    return _readable(Path(settings.pretrained))


def check_within_reach(settings: ModelSettings) -> None:
    """Check that this machine has the weights or can download them, without downloading.

    Raises as `load_first_weights` does.
    """
    if settings.pretrained != "imagenet":
        check_hash(settings, _readable(Path(settings.pretrained)))
        return
    source = _source(settings)
    source.check()
    found = source.found()
    if found:
        check_hash(settings, _wanted(settings, found))


def pinned(settings: ModelSettings) -> ModelSettings:
    """Return the settings with the hash of the file of `pretrained`, if they have none yet."""
    if settings.pretrained == "none" or settings.pretrained_sha256:
        return settings
    return settings.model_copy(update={"pretrained_sha256": file_hash(weights_file(settings))})


def check_hash(settings: ModelSettings, path: Path) -> None:
    """Raise CheckpointError if the file has another hash than the settings name."""
    wanted = settings.pretrained_sha256
    if not wanted:
        return
    actual = file_hash(path)
    if actual != wanted:
        raise CheckpointError(
            f"{path} on {socket.gethostname()}: its SHA-256 begins with {actual}, "
            f"pretrained_sha256 is {wanted}: not the file that the experiment began with; put that "
            "one back, or begin another experiment"
        )


def file_hash(path: Path) -> str:
    """Return the first 16 hex digits of a file's SHA-256.

    The file is read again only if its size or modification time has changed.
    """
    status = path.stat()
    return _hash(path, status.st_size, status.st_mtime_ns)


@cache
def _hash(path: Path, size: int, mtime_ns: int) -> str:
    return model_hash(path)[:DIGITS]


def _wanted(settings: ModelSettings, paths: Sequence[Path]) -> Path:
    """Return the file of `pretrained_sha256` if it is among them, else the first."""
    wanted = settings.pretrained_sha256
    if wanted:
        for path in paths:
            if file_hash(path) == wanted:
                return path
    return paths[0]


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
            "it there, on every node or on a disk that all share, or set pretrained: none"
        ) from None
