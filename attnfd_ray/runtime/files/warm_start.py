"""Earlier trials that a search starts with: found in a store, and saved with the search.

Because they are saved, a search that is resumed starts with the same trials.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnfd_ray import registry
from attnfd_ray.atomic import write_atomic
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.search.objectives import MEASURED, measured_metrics
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial
from attnfd_ray.store import layout, marker
from attnfd_ray.store.store import Store

_COLUMNS = [
    "experiment",
    "search_id",
    "trial_id",
    "role",
    "state",
    "searched_json",
    "config_json",
    *MEASURED,
]
_ROLES = ("as_written", "trial")  # the others are not drawn from the space of `search:`


def earlier_trials(
    settings: ExperimentSettings,
    store: Store,
    search_id: str,
    source: str | None,
    *,
    has_begun: bool,
) -> list[PastTrial]:
    """Return the earlier trials that this search starts with.

    A search that has not begun takes them from `source`: an experiment of the same store, the
    directory of another store, or `STORE:EXPERIMENT`. Raises ConfigError if `source` does not
    exist, has no finished trial in the space, or is not what the search began with; and StoreError.
    """
    file = layout.earlier_trials_file(settings.store, search_id)
    if file.exists():
        saved = json.loads(file.read_text(encoding="utf-8"))
        if source not in (None, saved["source"]):
            raise _other_start(source, search_id, f"with --warm-start {saved['source']}")
        return [PastTrial(**trial) for trial in saved["trials"]]
    if source is None:
        return []
    if has_begun:
        raise _other_start(source, search_id, "without a warm start")
    trials = _read_trials(settings, store, source, search_id)
    summary = SearchPlan(settings, search_id=search_id, earlier=trials).warm_start
    if not summary.taken:
        raise ConfigError(
            f"--warm-start {source}: no finished trial in the space of `search:` "
            f"({summary.outside} outside it); widen the space, or leave --warm-start out"
        )
    content = {"source": source, "trials": [dataclasses.asdict(trial) for trial in trials]}
    write_atomic(file, json.dumps(content, indent=1).encode())
    return trials


def epochs_by_trial(store: Store) -> dict[str, list[tuple[int, float]]]:
    """Return trial id -> (epoch, val_miou) pairs, in the order of the store."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in store.epochs(columns=["trial_id", "epoch", "val_miou"]).to_pylist():
        found.setdefault(row["trial_id"], []).append((row["epoch"], row["val_miou"]))
    return found


def _other_start(source: str | None, search_id: str, how: str) -> ConfigError:
    return ConfigError(
        f"--warm-start {source}: {search_id} was started {how}; leave --warm-start out to resume "
        "it, or start over with --fresh"
    )


def _read_trials(
    settings: ExperimentSettings, store: Store, source: str, search_id: str
) -> list[PastTrial]:
    """Return the trials of the experiment that `source` names, other than those of this search."""
    source_store, experiment = _resolve(store, source, shown=settings.store)
    rows = [
        row
        for row in source_store.trials(columns=_COLUMNS).to_pylist()
        if row["experiment"] == experiment
        and row["role"] in _ROLES
        and row["search_id"] != search_id
    ]
    rows.sort(key=lambda row: row["trial_id"])
    epochs = epochs_by_trial(source_store)
    return [
        PastTrial(
            trial_id=row["trial_id"],
            role=row["role"],
            values=_searched_values(row, settings),
            state=row["state"],
            epochs=_scored(epochs.get(row["trial_id"], [])),
            measures=measured_metrics(row),
        )
        for row in rows
    ]


def _scored(epochs: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return sorted((epoch, miou) for epoch, miou in epochs if miou is not None)


def _resolve(store: Store, source: str, *, shown: str) -> tuple[Store, str]:
    """Return the store and the experiment that `source` names; `shown` is the path of `store`."""
    if source in _experiments_with_search(store):
        return store, source
    before, colon, after = source.rpartition(":")
    directory, experiment = source, None
    if colon:
        directory, experiment = before, after
    if not (Path(directory).expanduser() / marker.NAME).is_file():
        hint = registry.suggestion(source, _experiments_with_search(store))
        raise ConfigError(
            f"--warm-start {source}: neither a store nor an experiment with a search in "
            f"{shown}{hint}"
        )
    source_store = Store.open(directory, create=False)
    experiments = _experiments_with_search(source_store)
    if experiment is not None:
        if experiment not in experiments:
            hint = registry.suggestion(experiment, experiments)
            raise ConfigError(
                f"--warm-start {source}: {directory} has no search of '{experiment}'{hint}"
            )
        return source_store, experiment
    if not experiments:
        raise ConfigError(f"--warm-start {source}: the store has no search")
    if len(experiments) > 1:
        hint = registry.suggestion("", experiments)
        raise ConfigError(f"--warm-start {source}: which experiment? give {directory}:NAME{hint}")
    return source_store, experiments[0]


def _experiments_with_search(store: Store) -> list[str]:
    rows = store.trials(columns=["experiment", "role"]).to_pylist()
    return sorted({row["experiment"] for row in rows if row["role"] in _ROLES})


def _searched_values(row: Mapping[str, Any], settings: ExperimentSettings) -> dict[str, Any]:
    """Return a trial's searched values; for paths searched only now, those of its own settings."""
    values: dict[str, Any] = json.loads(row["searched_json"])
    config = json.loads(row["config_json"] or "{}")
    for path in settings.search.keys() - values.keys():
        section, name = _section(config, path)
        if name in section:
            values[path] = section[name]
    return values


def _section(config: Any, path: str) -> tuple[dict[str, Any], str]:
    """Return the section of `a.b.c` (that of `a.b`, {} where there is none) and its last key."""
    *parents, name = path.split(".")
    section = config
    for key in parents:
        if not isinstance(section, dict):
            return {}, name
        section = section.get(key)
    if not isinstance(section, dict):
        return {}, name
    return section, name
