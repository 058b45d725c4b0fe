"""What is left in a store by killed commands, ended trials and trials that do not lead: found, and
deleted.

Nothing of an experiment is looked at while a command holds it, and nothing outside the store: links
are passed over.
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
from attnfd_ray.runtime.files.claims import file_lock
from attnfd_ray.runtime.files.retention import expired_files, is_own, partial_files, remove
from attnfd_ray.store.store import Store

_CLAIM = re.compile(r"(?P<lock>.+\.(?P<command>train|search))\d+")
# what follows the id of a run or a search: in the names of its trials, and of Ray's directories
_TRIAL, _SESSION = r"(\.confirm-[0-9a-f]+-s|-b?)\d+", r"(\.confirm)?-[0-9a-f]{8}"
# A command that only asks the nodes holds no lock; it has its answers within minutes.
_PREFLIGHT_S = 3600.0

Found = Iterator[tuple[Path, str]]


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A file or a directory of a store that may go, why, and its size in bytes."""

    path: Path
    why: str
    size: int


def collect(
    store: Store,
    *,
    dry_run: bool,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.time,
) -> Iterator[Leftover]:
    """Yield what may go, each one deleted by then unless `dry_run`; `say` hears what is left alone,
    and why.

    Raises StoreError for what cannot be deleted, and for an experiment's file that cannot be read.
    """
    busy = False
    for lock, find in _owners(store):
        with contextlib.ExitStack() as holding:
            try:
                holding.enter_context(
                    file_lock(store.root, lock, f"a command is working on '{lock}'")
                )
            except StoreError as error:
                say(f"left alone: {error}")
                busy = True
                continue
            yield from _taken(find, dry_run=dry_run)
    if not busy:
        yield from _taken(partial(_preflights, store, clock()), dry_run=dry_run)


def _owners(store: Store) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Yield what is locked together and how to find what may go of it: each run, each search, each
    trained teacher.
    """
    for file in sorted((store.root / "experiments").glob("*.json")):
        if match := _CLAIM.fullmatch(file.stem):
            of = _of_search if match["command"] == "search" else _of_run
            yield match["lock"], partial(of, store, file)
    for directory in _children(store, "runs", "teacher-[0-9a-f]+"):
        yield directory.name, partial(_half_written, store, directory)


def _of_search(store: Store, file: Path) -> Found:
    yield from _sessions(store, file.stem)
    for directory in _children(store, "runs", re.escape(file.stem) + _TRIAL):
        yield from _half_written(store, directory)
    tune = _tune(file)
    yield from expired_files(store, file.stem, keep_weights=tune.keep_weights, metrics=tune.metrics)


def _of_run(store: Store, file: Path) -> Found:
    yield from _sessions(store, file.stem)
    for directory in _children(store, "runs", re.escape(file.stem)):
        yield from _half_written(store, directory)


def _half_written(store: Store, directory: Path) -> Found:
    """Yield what a killed run was writing; its whole checkpoints are what it goes on from."""
    for aside in sorted((directory / "checkpoints").glob("*.writing")):
        if is_own(store, aside):
            yield aside, "never written to its end"
    yield from partial_files(store, directory)


def _sessions(store: Store, run_id: str) -> Found:
    for directory in _children(store, "ray", re.escape(run_id) + _SESSION):
        yield directory, "of a command that is over"


def _preflights(store: Store, now_s: float) -> Found:
    for directory in _children(store, "preflight", "[0-9a-f]+"):
        if now_s - directory.stat().st_mtime > _PREFLIGHT_S:
            yield directory, "of a command that is over"


def _children(store: Store, room: str, names: str) -> list[Path]:
    """Return the directories of a room of the store that are named so, and that are no links."""
    found = sorted((store.root / room).glob("*"))
    return [
        path
        for path in found
        if re.fullmatch(names, path.name) and is_own(store, path) and path.is_dir()
    ]


def _tune(file: Path) -> TuneSettings:
    """Return what a search keeps weights by; one that was started before there was `keep_weights`
    keeps all.
    """
    try:
        tune = json.loads(file.read_text(encoding="utf-8"))["tune"]
        known = {"keep_weights": tune.get("keep_weights"), "metric": tune.get("metric", MIOU)}
        return TuneSettings.model_validate(known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # pydantic's is a ValueError
        raise StoreError(
            f"{file}: cannot be read as settings; restore it, or move it away to leave its search "
            "alone"
        ) from None


def _taken(find: Callable[[], Found], *, dry_run: bool) -> Iterator[Leftover]:
    """Yield each thing found once, deleted by then unless `dry_run`; what lies in another goes with
    it.
    """
    found = dict(find())
    for path, why in found.items():
        if found.keys().isdisjoint(path.parents):
            size = size_of(path)
            if not dry_run:
                remove(path)
            yield Leftover(path=path, why=why, size=size)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a directory; links are not followed."""
    files = (
        [path]
        if path.is_file()
        else [file for file in path.rglob("*") if file.is_file() or file.is_symlink()]
    )
    return sum(file.lstat().st_size for file in files)
