"""Which run a command starts or continues: the directory of an experiment, its settings, and a lock on it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from attnfd_ray.config.overrides import differences
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError, StoreError
from attnfd_ray.store.aside import write_whole

_SHOWN = 6


def claim_id(settings: ExperimentSettings, command: str, *, fresh: bool) -> str:
    """Return the id of the run or search to start or go on with, as `<experiment>.<command><n>`.

    The same settings go on where they stopped; with `fresh` a new one is counted. Raises ConfigError, with the
    difference, for other settings under the same name.
    """
    root = Path(settings.store) / "experiments"
    prefix = f"{settings.experiment}.{command}"
    numbers = [int(path.stem.removeprefix(prefix)) for path in root.glob(f"{prefix}*.json") if _numbered(path, prefix)]
    number = max(numbers, default=0)
    if number and not fresh:
        _check_same(settings, root / f"{prefix}{number}.json")
        return f"{prefix}{number}"
    number += 1
    root.mkdir(parents=True, exist_ok=True)
    write_whole(root / f"{prefix}{number}.json", settings.model_dump_json(indent=1).encode())
    return f"{prefix}{number}"


def locked(settings: ExperimentSettings, command: str) -> AbstractContextManager[None]:
    """Hold the experiment: two drivers on one run would write over each other. Raises StoreError if it is held."""
    busy = f"another attnfd-ray {command} is working on '{settings.experiment}'; wait for it, or stop it"
    return held(settings, f"{settings.experiment}.{command}", busy)


@contextmanager
def held(settings: ExperimentSettings, name: str, busy: str) -> Iterator[None]:
    """Hold a name in the store, for as long as this process lives at most; StoreError says `busy` if another does."""
    path = Path(settings.store) / "experiments" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{path}: {busy}") from None
        yield


def _numbered(path: Path, prefix: str) -> bool:
    return path.stem.removeprefix(prefix).isdigit()


def _check_same(settings: ExperimentSettings, file: Path) -> None:
    old = json.loads(file.read_text(encoding="utf-8"))
    changed = differences(old, settings.model_dump(mode="json"))
    if changed:
        more = f"; and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise ConfigError(
            f"experiment '{settings.experiment}' was started with other settings "
            f"({'; '.join(changed[:_SHOWN])}{more}); "
            "give the changed file another experiment name, or start over with --fresh"
        )
