"""Whole files or none: how everything in a store comes to be. Standard library only."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file that no reader ever sees half of, and that is on the disk when this returns.
    Raises OSError.

    Until it is whole it has a name with a dot in front, which pyarrow, pandas, duckdb and shell
    patterns pass over.
    """
    aside = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with aside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:  # Ctrl-C too: nothing half-written is left behind
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make new names in a directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
