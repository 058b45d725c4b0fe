"""Trials of an earlier search to begin one with: found, and kept with the search, so that it goes
on with the same.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnfd_ray import registry
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.search.objectives import MEASURED, measured_metrics
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial
from attnfd_ray.store import marker
from attnfd_ray.store.atomic import write_atomic
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


def earlier_trials(
    settings: ExperimentSettings, search_id: str, source: str | None, *, has_begun: bool
) -> list[PastTrial]:
    """Return the trials this search was begun with; if it has not begun, those of `source`, which
    are kept from now on.

    `source` is an experiment of the same store, the directory of another, or `STORE:EXPERIMENT`.
    Raises ConfigError where it is not there, no trial of it would teach anything, or the search was
    begun otherwise; and StoreError.
    """
    file = Path(settings.store) / "experiments" / f"{search_id}.earlier.json"
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if source not in (None, kept["source"]):
            raise _begun_otherwise(source, search_id, f"with --warm-start {kept['source']}")
        return [PastTrial(**trial) for trial in kept["trials"]]
    if source is None:
        return []
    if has_begun:
        raise _begun_otherwise(source, search_id, "without a warm start")
    trials = _read(settings, source, but=search_id)
    warmth = SearchPlan(settings, search_id=search_id, earlier=trials).warmth
    if not warmth.taken:
        raise ConfigError(
            f"--warm-start {source}: no finished trial in the space of `search:` "
            f"({warmth.outside} outside it); "
            "widen the space, or leave --warm-start out"
        )
    content = {"source": source, "trials": [dataclasses.asdict(trial) for trial in trials]}
    write_atomic(file, json.dumps(content, indent=1).encode())
    return trials


def _begun_otherwise(source: str | None, search_id: str, how: str) -> ConfigError:
    return ConfigError(
        f"--warm-start {source}: {search_id} was begun {how}; leave --warm-start out to go on "
        "with it, "
        "or start over with --fresh"
    )


def _read(settings: ExperimentSettings, source: str, *, but: str) -> list[PastTrial]:
    store, experiment = _found(settings, source)
    rows = [
        row
        for row in store.trials(columns=_COLUMNS).to_pylist()
        if row["experiment"] == experiment
        and row["role"] in ("as_written", "trial")
        and row["search_id"] != but
    ]
    epochs: dict[str, list[tuple[int, float]]] = {}
    for row in store.epochs(columns=["trial_id", "epoch", "val_miou"]).to_pylist():
        if row["val_miou"] is not None:
            epochs.setdefault(row["trial_id"], []).append((row["epoch"], row["val_miou"]))
    return [
        PastTrial(
            trial_id=row["trial_id"],
            role=row["role"],
            values=_values(row, settings),
            state=row["state"],
            epochs=sorted(epochs.get(row["trial_id"], ())),
            measures=measured_metrics(row),
        )
        for row in sorted(rows, key=lambda row: row["trial_id"])
    ]


def _found(settings: ExperimentSettings, source: str) -> tuple[Store, str]:
    """Return the store and the experiment that are meant."""
    here = Store.open(settings.store, create=False)
    if source in _searched(here):
        return here, source
    directory, colon, experiment = source.rpartition(":")
    place = directory if colon else source
    if not (Path(place).expanduser() / marker.NAME).is_file():
        there = registry.suggestion(source, _searched(here))
        raise ConfigError(
            f"--warm-start {source}: neither a store nor an experiment with a search in "
            f"{settings.store}{there}"
        )
    store = Store.open(place, create=False)
    searched = _searched(store)
    if colon and experiment not in searched:
        raise ConfigError(
            f"--warm-start {source}: {place} has no search of "
            f"'{experiment}'{registry.suggestion(experiment, searched)}"
        )
    if not colon and len(searched) != 1:
        which = (
            f"which experiment? say {place}:NAME{registry.suggestion('', searched)}"
            if searched
            else "no search there"
        )
        raise ConfigError(f"--warm-start {source}: {which}")
    return store, experiment if colon else searched[0]


def _searched(store: Store) -> list[str]:
    """Return the experiments that have trials of a search."""
    rows = store.trials(columns=["experiment", "role"]).to_pylist()
    return sorted({row["experiment"] for row in rows if row["role"] in ("as_written", "trial")})


def _values(row: Mapping[str, Any], settings: ExperimentSettings) -> dict[str, Any]:
    """Return what was searched, and what the trial's own settings had for what is searched now."""
    values = json.loads(row["searched_json"])
    config = json.loads(row["config_json"] or "{}")
    for path in settings.search.keys() - values.keys():
        node: Any = config
        *parents, last = path.split(".")
        for key in parents:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict) and last in node:
            values[path] = node[last]
    return dict(values)
