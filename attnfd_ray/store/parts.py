"""Parts: the Parquet files a table consists of, their names, writing one and reading many."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from attnfd_ray.errors import StoreError
from attnfd_ray.store.atomic import write_atomic

# Reading a small part is half waiting; more threads than this gained nothing on 2 cores.
_THREADS = 4
_TRIAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}")
_PART = re.compile(r"(?P<trial_id>.+)\.a\d+\.\w+-[0-9a-f]{8}\.parquet")


def check_trial_id(trial_id: str) -> None:
    """Raise StoreError for a trial id that cannot be a file name everywhere."""
    if not _TRIAL_ID.fullmatch(trial_id):
        raise StoreError(
            f"trial id {trial_id!r}: needs letters, digits, '.', '_' or '-', at most 150, no dot "
            "first"
        )


def write(directory: Path, table: pa.Table, *, trial_id: str, attempt: int, what: str) -> Path:
    """Write one new part and return its path. Raises StoreError when the disk refuses."""
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
    """Return the parts there, in order of name."""
    if not directory.is_dir():
        return []  # copying tools and git leave empty directories behind
    return sorted(
        path for path in directory.iterdir() if path.suffix == ".parquet" and path.name[0] != "."
    )


def trial_of(part: Path) -> str | None:
    """Return whose rows a part holds by its name; None where someone gave it another."""
    match = _PART.fullmatch(part.name)
    return match["trial_id"] if match else None


def read(parts: Sequence[Path], columns: list[str] | None = None) -> list[pa.Table]:
    """Return each part's rows with those of `columns` that it has (None: all).

    Raises FileNotFoundError for a part that is gone, and StoreError naming one that is not whole.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_read_one, columns=columns), parts))


def _read_one(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            table = file.read(columns=columns, use_threads=False)
        reason = "" if "trial_id" in table.column_names else "it has no trial_id"
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
    if reason:
        raise StoreError(f"{path}: not a readable part: {reason}; move it away to read the others")
    return table


def join(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """Return all rows with exactly the columns of `schema`: null where a part lacks one, its
    further ones left out.
    """
    table = pa.concat_tables([schema.empty_table(), *tables], promote_options="permissive")
    return table.select(schema.names).cast(schema).combine_chunks()
