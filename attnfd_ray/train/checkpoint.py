"""Checkpoints: the whole state of a run on disk, so that a killed run resumes exactly. No ray.

`<run>/checkpoints/epoch-0003/` holds `state.pt` and, written last, `manifest.json` with the
checksum of the state. The directory is written under another name and then renamed. A directory
without a manifest, or with one that does not match, is ignored.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attnfd_ray.atomic import sync_directory, sync_file
from attnfd_ray.errors import CheckpointError, StoreError
from attnfd_ray.run_files import UNFINISHED_SUFFIX

_FULL_BYTES = 2**20  # a disk with less free space than this counts as full
_STATE = "state.pt"
_MANIFEST = "manifest.json"

State = dict[str, Any]  # what `torch.save` takes
Record = dict[str, Any]  # what JSON takes


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint: its epoch (from 1), the record of that epoch, and its directory."""

    epoch: int
    record: Record
    directory: Path

    def load(self) -> State:
        """Return the state, with tensors on the CPU.

        Raises CheckpointError where the file cannot be read, or would run code when loaded.
        """
        file = self.directory / _STATE
        try:
            state: State = torch.load(file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError):
            raise CheckpointError(
                f"{self.directory}: cannot be read as tensors and numbers; start over with "
                f"--fresh, or delete {self.directory.parents[1]}"
            ) from None
        return state


def save(root: Path, *, epoch: int, state: State, record: Record) -> None:
    """Write the checkpoint of an epoch atomically, then delete earlier ones.

    Raises StoreError where it cannot be written, for instance on a full disk.
    """
    final = root / f"epoch-{epoch:04d}"
    temporary = root / f"epoch-{epoch:04d}{UNFINISHED_SUFFIX}"
    try:
        for stale in (temporary, final):
            shutil.rmtree(stale, ignore_errors=True)
        _write(temporary, epoch=epoch, state=state, record=record)
        temporary.rename(final)
        sync_directory(root)
    except (OSError, RuntimeError) as error:  # torch wraps an OSError in a RuntimeError
        reason = _reason(error, root)  # first: deleting the files frees space
        shutil.rmtree(temporary, ignore_errors=True)
        raise StoreError(f"{final}: cannot be written: {reason}") from None
    for other in root.glob("epoch-*"):
        if other != final:
            shutil.rmtree(other, ignore_errors=True)


def latest(root: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint, or None."""
    checkpoints = [_complete(directory) for directory in root.glob("epoch-*")]
    complete = [checkpoint for checkpoint in checkpoints if checkpoint]
    return max(complete, key=lambda checkpoint: checkpoint.epoch, default=None)


def _write(directory: Path, *, epoch: int, state: State, record: Record) -> None:
    directory.mkdir(parents=True)
    with (directory / _STATE).open("wb") as file:
        torch.save(state, file)
        sync_file(file)
    manifest = {"epoch": epoch, "sha256": _sha256(directory / _STATE), "record": record}
    with (directory / _MANIFEST).open("w", encoding="utf-8") as text:
        json.dump(manifest, text)
        sync_file(text)


def _reason(error: OSError | RuntimeError, root: Path) -> str:
    """Return in one line why a checkpoint could not be written."""
    if root.is_dir() and shutil.disk_usage(root).free < _FULL_BYTES:
        return "No space left on device"
    text = getattr(error, "strerror", None) or error
    return str(text).splitlines()[0]


def _complete(directory: Path) -> Checkpoint | None:
    """Return the checkpoint in a directory, or None where it is incomplete."""
    if directory.suffix == UNFINISHED_SUFFIX:
        return None
    try:
        manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["sha256"] != _sha256(directory / _STATE):
            return None
        return Checkpoint(epoch=manifest["epoch"], record=manifest["record"], directory=directory)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
