"""The file that says "this directory is a store", so that nothing else is ever mistaken for one or
written into.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from attnfd_ray.errors import StoreError
from attnfd_ray.store.atomic import sync_directory, write_atomic
from attnfd_ray.store.schema import SCHEMA_VERSION

NAME = "attnfd_store.json"
FORMAT = "attnfd-ray store"


def check(root: Path) -> None:
    """Raise StoreError unless `root` is a store that this version can read."""
    if not root.exists():
        raise StoreError(
            f"{root}: there is no such directory; `attnfd-ray train` or `tune` makes a store"
        )
    if not root.is_dir():
        raise StoreError(f"{root}: is a file; a store is a directory")
    try:
        marker = json.loads((root / NAME).read_text(encoding="utf-8"))
        known = marker["format"] == FORMAT
        version = int(marker["schema_version"])
    except FileNotFoundError:
        raise StoreError(
            f"{root}: not an attnfd-ray store: no {NAME} there; name a store, or a new or empty "
            "directory to make one"
        ) from None
    except OSError as error:
        raise StoreError(f"{root / NAME}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        known, version = False, 0
    if not known:
        raise StoreError(
            f"{root / NAME}: does not say what an attnfd-ray store says; restore it from a copy"
        )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{root}: written by a newer attnfd-ray: schema {version}, this one knows "
            f"{SCHEMA_VERSION}; upgrade it"
        )


def create(root: Path, tables: list[str]) -> None:
    """Make `root` a store unless it is one; raise StoreError where it is something else or cannot
    be written.

    Several processes may do so at once: the marker comes first, and is the same whoever writes it.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        # hidden files do not count: another process may be writing the marker aside this moment
        if not any(path.name[0] != "." for path in root.iterdir()):
            text = json.dumps({"format": FORMAT, "schema_version": SCHEMA_VERSION})
            write_atomic(root / NAME, f"{text}\n".encode())
        check(root)
        for table in tables:
            (root / table).mkdir(exist_ok=True)
        sync_directory(root)
    except FileExistsError:
        raise StoreError(f"{root}: is a file; a store is a directory") from None
    except OSError as error:
        raise StoreError(f"{root}: cannot be written: {error.strerror}") from None
    for directory in (root, *(root / table for table in tables)):
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StoreError(
                f"{directory}: cannot be written: no permission, or the file system is read-only"
            )
