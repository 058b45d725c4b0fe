"""The whole state of a run on disk, so that a run killed at any moment goes on as if nothing had
happened.

`<run>/checkpoints/epoch-0003/` holds `state.pt` and, written last, `manifest.json` with its
checksum; the directory is filled under another name and renamed. What has no manifest, or one that
does not fit, was never there.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attnfd_ray.errors import CheckpointError, StoreError

_FULL_BYTES = 2**20
_STATE, _MANIFEST, _ASIDE = "state.pt", "manifest.json", ".writing"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint: its epoch, what the run said after it, and where it lies."""

    epoch: int
    record: dict[str, Any]
    directory: Path

    def load(self) -> dict[str, Any]:
        """Return the state, tensors on the CPU. Runs no code from the file: one that asks for it is
        refused.
        """
        try:
            state: dict[str, Any] = torch.load(
                self.directory / _STATE, map_location="cpu", weights_only=True
            )
        except (OSError, RuntimeError, pickle.UnpicklingError):
            raise CheckpointError(
                f"{self.directory}: cannot be read as tensors and numbers; start over with "
                "--fresh, "
                f"or delete {self.directory.parents[1]}"
            ) from None
        return state


def save(root: Path, *, epoch: int, state: dict[str, Any], record: dict[str, Any]) -> None:
    """Write the checkpoint of an epoch, then delete the ones before it. Raises StoreError on a full
    disk.
    """
    final, aside = root / f"epoch-{epoch:04d}", root / f"epoch-{epoch:04d}{_ASIDE}"
    try:
        for stale in (aside, final):
            shutil.rmtree(stale, ignore_errors=True)
        aside.mkdir(parents=True)
        with (aside / _STATE).open("wb") as file:
            torch.save(state, file)
            _flush(file)
        manifest = {"epoch": epoch, "sha256": _sha256(aside / _STATE), "record": record}
        with (aside / _MANIFEST).open("w", encoding="utf-8") as text:
            json.dump(manifest, text)
            _flush(text)
        aside.rename(final)
        _flush_directory(root)
    except (OSError, RuntimeError) as error:  # torch wraps what the disk says in a RuntimeError
        full = (
            root.is_dir() and shutil.disk_usage(root).free < _FULL_BYTES
        )  # before what was written is removed
        shutil.rmtree(aside, ignore_errors=True)
        reason = str(getattr(error, "strerror", None) or error).splitlines()[0]
        reason = "No space left on device" if full else reason
        raise StoreError(f"{final}: cannot be written: {reason}") from None
    for other in root.glob("epoch-*"):
        if other != final:
            shutil.rmtree(other, ignore_errors=True)


def latest(root: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint, or None."""
    found = [
        checkpoint for directory in root.glob("epoch-*") if (checkpoint := _complete(directory))
    ]
    return max(found, key=lambda checkpoint: checkpoint.epoch, default=None)


def _complete(directory: Path) -> Checkpoint | None:
    if directory.suffix == _ASIDE:
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


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
