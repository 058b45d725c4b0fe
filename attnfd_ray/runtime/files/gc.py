"""Garbage collection of a store: files of killed commands, of ended trials and of losing trials.

An experiment that a command is working on is skipped. Links are skipped, so nothing outside the
store is deleted.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from attnfd_ray.config.metrics import MIOU
from attnfd_ray.config.schema import TuneSettings
from attnfd_ray.errors import StoreError
from attnfd_ray.ids import RUN_ID, TEACHER_ID, trials_of
from attnfd_ray.run_files import CHECKPOINTS, UNFINISHED_SUFFIX
from attnfd_ray.runtime.files.claims import file_lock
from attnfd_ray.runtime.files.retention import expired_files, is_own, partial_files, remove
from attnfd_ray.store import layout
from attnfd_ray.store.store import Store

# A preflight check holds no lock. It takes minutes at most.
_PREFLIGHT_S = 3600.0

_SESSION_REASON = "of a command that has ended"

Found = Iterator[tuple[Path, str]]  # (path, reason)


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A file or directory of a store that can be deleted, the reason, and its size in bytes."""

    path: Path
    reason: str
    size: int


def collect(
    store: Store,
    *,
    dry_run: bool,
    log: Callable[[str], None],
    clock: Callable[[], float] = time.time,
) -> Iterator[Leftover]:
    """Delete what is no longer needed, unless `dry_run`, and yield each file or directory.

    `log` gets a line for each experiment that is skipped. Raises StoreError for what cannot be
    deleted, and for settings of an experiment that cannot be read.
    """
    any_busy = False
    for lock, find in _owners(store):
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(
                    file_lock(store.root, lock, f"a command is working on '{lock}'")
                )
            except StoreError as error:
                log(f"skipped: {error}")
                any_busy = True
                continue
            yield from _delete(find, dry_run=dry_run)
    if not any_busy:
        yield from _delete(partial(_old_preflights, store, clock()), dry_run=dry_run)


def _owners(store: Store) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Yield (lock, how to find the garbage) for each run, search and trained teacher."""
    find_by_command = {"search": _of_search, "train": _of_run}
    for file in sorted((layout.experiments(store.root)).glob("*.json")):
        if match := RUN_ID.fullmatch(file.stem):
            yield match["lock"], partial(find_by_command[match["command"]], store, file)
    for directory in _children(store, layout.RUNS, TEACHER_ID):
        yield directory.name, partial(_unfinished_files, store, directory)


def _of_search(store: Store, file: Path) -> Found:
    yield from _sessions(store, file.stem)
    for directory in _children(store, layout.RUNS, trials_of(file.stem)):
        yield from _unfinished_files(store, directory)
    tune = _tune_settings(file)
    yield from expired_files(store, file.stem, keep_weights=tune.keep_weights, metrics=tune.metrics)


def _of_run(store: Store, file: Path) -> Found:
    yield from _sessions(store, file.stem)
    for directory in _children(store, layout.RUNS, re.compile(re.escape(file.stem))):
        yield from _unfinished_files(store, directory)


def _unfinished_files(store: Store, directory: Path) -> Found:
    """Yield the files that a killed run was writing; it resumes from its complete checkpoints."""
    for unfinished in sorted((directory / CHECKPOINTS).glob(f"*{UNFINISHED_SUFFIX}")):
        if is_own(store, unfinished):
            yield unfinished, "never written to its end"
    yield from partial_files(store, directory)


def _sessions(store: Store, run_id: str) -> Found:
    """Yield the directories that Ray used for commands on this run or search."""
    for directory in layout.sessions(store.root, run_id):
        if is_own(store, directory) and directory.is_dir():
            yield directory, _SESSION_REASON


def _old_preflights(store: Store, now_s: float) -> Found:
    for directory in _children(store, layout.PREFLIGHT, re.compile("[0-9a-f]+")):
        if now_s - directory.stat().st_mtime > _PREFLIGHT_S:
            yield directory, _SESSION_REASON


def _children(store: Store, folder: str, pattern: re.Pattern[str]) -> list[Path]:
    """Return the directories in a folder of the store whose names match; links are left out."""
    found = sorted((store.root / folder).glob("*"))
    return [
        path
        for path in found
        if pattern.fullmatch(path.name) and is_own(store, path) and path.is_dir()
    ]


def _tune_settings(file: Path) -> TuneSettings:
    """Return the settings by which a search keeps weights.

    A search of a version that did not know `keep_weights` keeps all. Raises StoreError.
    """
    try:
        tune = json.loads(file.read_text(encoding="utf-8"))["tune"]
        known = {"keep_weights": tune.get("keep_weights"), "metric": tune.get("metric", MIOU)}
        return TuneSettings.model_validate(known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # pydantic's is a ValueError
        raise StoreError(
            f"{file}: cannot be read as settings; restore it, or move it away to have gc skip its "
            "search"
        ) from None


def _delete(find: Callable[[], Found], *, dry_run: bool) -> Iterator[Leftover]:
    """Delete each path found, unless `dry_run`, and yield it once.

    A path inside another path found is deleted with that one.
    """
    found = dict(find())
    for path, reason in found.items():
        if found.keys().isdisjoint(path.parents):
            size = size_of(path)
            if not dry_run:
                remove(path)
            yield Leftover(path=path, reason=reason, size=size)


def size_of(path: Path) -> int:
    """Return the size in bytes of a file, or of all files below a directory.

    Links are not followed.
    """
    if path.is_file():
        return path.lstat().st_size
    files = (file for file in path.rglob("*") if file.is_file() or file.is_symlink())
    return sum(file.lstat().st_size for file in files)
