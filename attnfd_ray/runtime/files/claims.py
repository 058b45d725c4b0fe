"""Which run a command starts or continues: the directory of an experiment, its settings, and a lock
on it.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from attnfd_ray.config.overrides import differences
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError, StoreError
from attnfd_ray.store.atomic import write_atomic

_SHOWN = 6


def claim_run_id(settings: ExperimentSettings, command: str, *, fresh: bool) -> str:
    """Return the id of the run or search to start or go on with, as `<experiment>.<command><n>`.

    The same settings go on where they stopped; with `fresh` a new one is counted. Raises
    ConfigError, with the difference, for other settings under the same name.
    """
    root = Path(settings.store) / "experiments"
    prefix = f"{settings.experiment}.{command}"
    number = _latest(root, prefix)
    if number and not fresh:
        _check_same(settings, root / f"{prefix}{number}.json")
    else:
        number += 1
    _write(settings, root / f"{prefix}{number}.json")
    return f"{prefix}{number}"


def check_searched(settings: ExperimentSettings) -> None:
    """Raise ConfigError unless the store knows a search of the experiment."""
    root = Path(settings.store) / "experiments"
    if not _latest(root, f"{settings.experiment}.search"):
        raise ConfigError(
            f"store {settings.store}: no search of '{settings.experiment}' was started there; "
            "run `attnfd-ray tune` with this file first, or give the store that has it with --set "
            "store="
        )


def locked(settings: ExperimentSettings, command: str) -> AbstractContextManager[None]:
    """Hold the experiment: two drivers on one run would write over each other. Raises StoreError if
    it is held.
    """
    busy = f"another attnfd-ray {command} is working on '{settings.experiment}'; wait for it, or stop it"
    return file_lock(settings.store, f"{settings.experiment}.{command}", busy)


@contextmanager
def file_lock(store: str | Path, name: str, busy: str) -> Iterator[None]:
    """Hold a name in the store, for as long as this process lives at most; StoreError says `busy`
    if another does.
    """
    path = Path(store) / "experiments" / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{path}: {busy}") from None
        yield


def _latest(root: Path, prefix: str) -> int:
    """Return the highest number given so far, 0 for none."""
    numbers = [
        int(path.stem.removeprefix(prefix))
        for path in root.glob(f"{prefix}*.json")
        if _numbered(path, prefix)
    ]
    return max(numbers, default=0)


def _numbered(path: Path, prefix: str) -> bool:
    return path.stem.removeprefix(prefix).isdigit()


def _write(settings: ExperimentSettings, file: Path) -> None:
    """Write what holds from now on: how long a search goes on and what it keeps may change from
    call to call.
    """
    content = settings.model_dump_json(indent=1).encode()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_bytes() != content:
            write_atomic(file, content)
    except OSError as error:
        raise StoreError(f"{file}: cannot be written: {error.strerror}") from None


def _check_same(settings: ExperimentSettings, file: Path) -> None:
    old = _as_read_now(json.loads(file.read_text(encoding="utf-8")))
    changed = differences(old, settings.model_dump(mode="json"))
    if changed:
        more = f"; and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise ConfigError(
            f"experiment '{settings.experiment}' was started with other settings "
            f"({'; '.join(changed[:_SHOWN])}{more}); "
            "give the same --set as then, give the changed file another experiment name, or start "
            "over with --fresh"
        )


def _as_read_now(old: dict[str, Any]) -> dict[str, Any]:
    """Return settings of any version with what was added since at its default, which is how it was
    without it.
    """
    try:
        return ExperimentSettings.model_validate(old).model_dump(mode="json")
    except (
        ValueError
    ):  # pydantic's: what they hold this version refuses, and the difference shows it
        return old
