"""Atomic writes, by which every file of a store is made. Standard library only."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees half of it; it is on disk when this returns.

    Until it is complete it has a hidden name, which pyarrow, pandas, duckdb and shell patterns
    ignore. Raises OSError.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # Ctrl-C too: no half-written file is left behind
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make new names in a directory survive a power cut. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
