"""Parts, the Parquet files of a table: their names, writing one and reading many."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from attnfd_ray.atomic import write_atomic
from attnfd_ray.errors import StoreError
from attnfd_ray.ids import TRIAL_ID

# half of reading a small part is waiting; more threads gained nothing on 2 cores
_THREADS = 4
_PART = re.compile(r"(?P<trial_id>.+)\.a\d+\.\w+-[0-9a-f]{8}\.parquet")


def check_trial_id(trial_id: str) -> None:
    """Raise StoreError for a trial id that is not a valid file name everywhere."""
    if not TRIAL_ID.fullmatch(trial_id):
        raise StoreError(
            f"trial id {trial_id!r}: needs letters, digits, '.', '_' or '-', at most 150, the "
            "first a letter or digit"
        )


def write(directory: Path, table: pa.Table, *, trial_id: str, attempt: int, what: str) -> Path:
    """Write a new part and return its path; `what` is a word for its rows, part of its name.

    Raises StoreError where it cannot be written.
    """
    check_trial_id(trial_id)
    path = directory / f"{trial_id}.a{attempt:03d}.{what}-{uuid.uuid4().hex[:8]}.parquet"
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    try:
        directory.mkdir(exist_ok=True)
        write_atomic(path, buffer.getvalue().to_pybytes())
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def find(directory: Path) -> list[Path]:
    """Return the parts in a directory, sorted by name; none where there is no directory."""
    if not directory.is_dir():
        return []  # copying tools and git leave out empty directories
    return sorted(
        path for path in directory.iterdir() if path.suffix == ".parquet" and path.name[0] != "."
    )


def trial_of(part: Path) -> str | None:
    """Return the trial id in the name of a part; None for a part that was renamed."""
    match = _PART.fullmatch(part.name)
    if match is None:
        return None
    return match["trial_id"]


def read(parts: Sequence[Path], columns: list[str] | None = None) -> list[pa.Table]:
    """Return the rows of each part, with those of `columns` that it has (None: all).

    Raises FileNotFoundError for a part that is gone, and StoreError for one that cannot be read.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_read_one, columns=columns), parts))


def _read_one(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            table = file.read(columns=columns, use_threads=False)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, str(error).partition("\n")[0]) from None
    if "trial_id" not in table.column_names:
        raise _unreadable(path, "it has no trial_id")
    return table


def _unreadable(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"{path}: not a readable part: {reason}; move it away to read the other parts"
    )


def join(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """Return all rows with exactly the columns of `schema`.

    A column that a part lacks is null; further columns of a part are left out.
    """
    table = pa.concat_tables([schema.empty_table(), *tables], promote_options="permissive")
    return table.select(schema.names).cast(schema).combine_chunks()
