"""Atomic writes: a reader sees the old file or the new one, never half of it.

Imports nothing of the package.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

TEMPORARY_SUFFIX = ".partial"


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to; it becomes `path` when the block ends without an error.

    It is on disk then. Until then it has a hidden name, which pyarrow, pandas, duckdb and shell
    patterns ignore. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            yield file
            sync_file(file)
        temporary.replace(path)
    except BaseException:  # Ctrl-C too: no half-written file is left behind
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a whole file atomically. Raises OSError."""
    with atomic_file(path) as file:
        file.write(content)


def sync_file(file: IO[Any]) -> None:
    """Wait until an open file's content is on disk. Raises OSError."""
    file.flush()
    os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make new names in a directory survive a power cut. Raises OSError.

    Does nothing on a file system that cannot do that for a directory.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
