"""The marker file of a store, without which no directory is read or written as one."""

from __future__ import annotations

import json
import os
from pathlib import Path

from attnfd_ray.atomic import sync_directory, write_atomic
from attnfd_ray.errors import StoreError
from attnfd_ray.store.schema import SCHEMA_VERSION

NAME = "attnfd_store.json"
FORMAT = "attnfd-ray store"


def check(root: Path) -> None:
    """Raise StoreError unless `root` is a store that this version can read."""
    if not root.exists():
        raise StoreError(
            f"{root}: no such directory; `attnfd-ray train` or `attnfd-ray tune` makes a store"
        )
    if not root.is_dir():
        raise StoreError(f"{root}: is a file; a store is a directory")
    version = _schema_version(root)
    if version is None:
        raise StoreError(
            f"{root / NAME}: is not the marker of an attnfd-ray store; restore it from a copy"
        )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{root}: written by a newer attnfd-ray: schema {version}, this one knows "
            f"{SCHEMA_VERSION}; upgrade it"
        )


def _schema_version(root: Path) -> int | None:
    """Return the schema version in the marker; None where the marker holds something else."""
    try:
        marker = json.loads((root / NAME).read_text(encoding="utf-8"))
        version = int(marker["schema_version"])
        is_ours = marker["format"] == FORMAT
    except FileNotFoundError:
        raise StoreError(
            f"{root}: not an attnfd-ray store: no {NAME} there; name a store, or a new or empty "
            "directory to make one"
        ) from None
    except OSError as error:
        raise StoreError(f"{root / NAME}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        return None
    if not is_ours:
        return None
    return version


def create(root: Path, tables: list[str]) -> None:
    """Make `root` a store unless it is one already.

    Several processes may do so at once: the marker is written first, and is the same from each.
    Raises StoreError where `root` is something else or cannot be written.
    """
    directories = [root / table for table in tables]
    try:
        root.mkdir(parents=True, exist_ok=True)
        # hidden files do not count: another process may be writing the marker at this moment
        if all(path.name.startswith(".") for path in root.iterdir()):
            text = json.dumps({"format": FORMAT, "schema_version": SCHEMA_VERSION})
            write_atomic(root / NAME, f"{text}\n".encode())
        check(root)
        for directory in directories:
            directory.mkdir(exist_ok=True)
        sync_directory(root)
    except FileExistsError:
        raise StoreError(f"{root}: is a file; a store is a directory") from None
    except OSError as error:
        raise StoreError(f"{root}: cannot be written: {error.strerror}") from None
    for directory in (root, *directories):
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StoreError(
                f"{directory}: cannot be written: no permission, or the file system is read-only"
            )
