"""Claims an experiment for one command: the id of its run or search, its settings, and a lock."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from attnfd_ray.atomic import write_atomic
from attnfd_ray.config.overrides import differences
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError, StoreError
from attnfd_ray.store import layout

_MAX_DIFFERENCES = 6  # in an error line


def claim_run_id(settings: ExperimentSettings, command: str, *, fresh: bool) -> str:
    """Return the id of the run or search to start or to resume: `<experiment>.<command><number>`.

    The same settings resume the latest one; `fresh` starts a new one with the next number. Raises
    ConfigError, with the differences, if the latest one has other settings.
    """
    prefix = f"{settings.experiment}.{command}"
    number = _latest_number(settings, prefix)
    if number and not fresh:
        _check_same(settings, layout.settings_file(settings.store, f"{prefix}{number}"))
    else:
        number += 1
    _write_settings(settings, layout.settings_file(settings.store, f"{prefix}{number}"))
    return f"{prefix}{number}"


def check_searched(settings: ExperimentSettings) -> None:
    """Raise ConfigError unless the store has a search of the experiment."""
    if not _latest_number(settings, f"{settings.experiment}.search"):
        raise ConfigError(
            f"store {settings.store}: no search of '{settings.experiment}' was started there; "
            "run `attnfd-ray tune` with this file first, or name the store that has it with "
            "--set store="
        )


def experiment_lock(settings: ExperimentSettings, command: str) -> AbstractContextManager[None]:
    """Return a lock on the experiment: two drivers of one run would overwrite each other's files.

    Entering it raises StoreError if another process holds it.
    """
    busy = (
        f"another attnfd-ray {command} is working on '{settings.experiment}'; wait for it, or "
        "stop it"
    )
    return file_lock(settings.store, f"{settings.experiment}.{command}", busy)


@contextmanager
def file_lock(store: str | Path, name: str, busy: str) -> Iterator[None]:
    """Hold the lock `name` of a store; it is released at the latest when this process ends.

    Raises StoreError with the text `busy` if another process holds it.
    """
    path = layout.lock_file(store, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_file = path.open("w")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None
    with lock_file:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{path}: {busy}") from None
        yield


def _latest_number(settings: ExperimentSettings, prefix: str) -> int:
    """Return the highest number in use, 0 for none."""
    directory = layout.experiments(settings.store)
    suffixes = [path.stem.removeprefix(prefix) for path in directory.glob(f"{prefix}*.json")]
    return max((int(suffix) for suffix in suffixes if suffix.isdigit()), default=0)


def _write_settings(settings: ExperimentSettings, file: Path) -> None:
    """Write the settings: some, as `tune.trials`, may change when a search is resumed."""
    content = settings.model_dump_json(indent=1).encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_bytes() != content:
            write_atomic(file, content)
    except OSError as error:
        raise StoreError(f"{file}: cannot be written: {error.strerror}") from None


def _check_same(settings: ExperimentSettings, file: Path) -> None:
    """Raise ConfigError, with the differences, if the file has other settings."""
    old = _with_new_defaults(json.loads(file.read_text(encoding="utf-8")))
    changed = differences(old, settings.model_dump(mode="json"))
    if not changed:
        return
    shown = "; ".join(changed[:_MAX_DIFFERENCES])
    if len(changed) > _MAX_DIFFERENCES:
        shown += f"; and {len(changed) - _MAX_DIFFERENCES} more"
    raise ConfigError(
        f"experiment '{settings.experiment}' was started with other settings ({shown}); "
        "give the same --set as then, give the changed file another experiment name, or start "
        "over with --fresh"
    )


def _with_new_defaults(old: dict[str, Any]) -> dict[str, Any]:
    """Return settings that another version wrote, with defaults for the keys added since.

    The defaults mean what that version did. Settings that this version refuses stay as they are, so
    that the difference shows them.
    """
    try:
        return ExperimentSettings.model_validate(old).model_dump(mode="json")
    except ValueError:  # of pydantic
        return old
