"""The settings of the best trial, or of any other, as a file for `attnfd-ray train`.

No torch, no ray.
"""

from __future__ import annotations

import json
from pathlib import Path

from attnfd_ray.analysis.records import Report
from attnfd_ray.atomic import write_atomic
from attnfd_ray.config import yaml_io
from attnfd_ray.errors import StoreError
from attnfd_ray.registry import suggestion
from attnfd_ray.store.store import Store

_MAX_NAME = 100  # characters of an experiment's name, see config.types
_MAX_SUFFIX = 40


def write_best_config(
    store: Store, report: Report, path: Path, *, trial_id: str | None = None
) -> str:
    """Write the settings of a trial as YAML, by default the best one's, and return its id.

    A file with the same content is left as it is. Raises StoreError when there is no such trial,
    when the file has other content, or when it cannot be written.
    """
    shown = report.shown
    if shown is None or not (trial_id or shown.best_trial_id):
        raise StoreError(
            f"{report.store}: no best config yet: no trial was completed with its full budget"
        )
    chosen = trial_id or shown.best_trial_id
    assert chosen is not None
    is_best = chosen == shown.best_trial_id
    content = best_config(store, shown.experiment, chosen, is_best=is_best).encode()
    try:
        if not path.exists():
            write_atomic(path, content)
        elif path.read_bytes() != content:
            raise StoreError(
                f"{path}: exists already, with other content; move it away or give another name"
            )
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None
    return chosen


def best_config(store: Store, experiment: str, trial_id: str, *, is_best: bool) -> str:
    """Return a trial's settings as the YAML of an experiment of its own, without a search.

    Raises StoreError where the experiment has no such trial, or the store no settings of it.
    """
    rows = store.trials(columns=["experiment", "trial_id", "config_json"]).to_pylist()
    configs = {
        row["trial_id"]: row["config_json"] for row in rows if row["experiment"] == experiment
    }
    if trial_id not in configs:
        raise StoreError(
            f"{store.name}: experiment '{experiment}' has no trial "
            f"'{trial_id}'{suggestion(trial_id, configs)}"
        )
    if not configs[trial_id]:
        raise StoreError(f"{store.name}: trial '{trial_id}' has no settings (config_json is empty)")
    settings = json.loads(configs[trial_id])
    for section in ("search", "tune"):
        settings.pop(section, None)
    settings["experiment"] = _name(experiment, trial_id, is_best=is_best)
    comment = (
        f"# Trial {trial_id} of experiment {experiment}, "
        "written by `attnfd-ray report --best-config`."
    )
    return f"{comment}\n{yaml_io.dump(settings)}"


def _name(experiment: str, trial_id: str, *, is_best: bool) -> str:
    """Return a name for the experiment: that of its source, and which trial it is."""
    suffix = "best"
    if not is_best:
        number = trial_id.removeprefix(experiment).strip(".-")
        suffix = number[-_MAX_SUFFIX:]
    return f"{experiment[: _MAX_NAME - len(suffix) - 1]}-{suffix}"
