"""The settings of the best trial, or of any other, as a file for `attnfd-ray train`."""

from __future__ import annotations

import json
from pathlib import Path

from attnfd_ray.analysis.records import Report
from attnfd_ray.config import yaml_io
from attnfd_ray.errors import StoreError
from attnfd_ray.registry import suggestion
from attnfd_ray.store.atomic import write_atomic
from attnfd_ray.store.store import Store

_LONGEST_NAME = 100  # of an experiment, see config.values
_LONGEST_SUFFIX = 40


def write_best_config(
    store: Store, report: Report, path: Path, *, trial_id: str | None = None
) -> str:
    """Write the settings of a trial, else of the best, as YAML; return its id. A file that says the
    same stays.

    Raises StoreError when there is no such trial, when the file holds anything else, or when it
    cannot be written.
    """
    best = report.shown.best_trial_id if report.shown else None
    chosen = trial_id or best
    if report.shown is None or chosen is None:
        raise StoreError(
            f"{report.store}: no best config yet: no trial was completed with its full budget"
        )
    text = best_config(store, report.shown.experiment, chosen, is_best=chosen == best)
    try:
        if not path.exists():
            write_atomic(path, text.encode())
        elif path.read_bytes() != text.encode():
            raise StoreError(
                f"{path}: there already, with other content; move it away or give another name"
            )
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None
    return chosen


def best_config(store: Store, experiment: str, trial_id: str, *, is_best: bool) -> str:
    """Return a trial's settings as the YAML of an experiment of its own: no search, and a name that
    says what it is.

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
        raise StoreError(
            f"{store.name}: trial '{trial_id}' carries no settings (config_json is empty)"
        )
    settings = json.loads(configs[trial_id])
    for section in ("search", "tune"):
        settings.pop(section, None)
    suffix = (
        "-best"
        if is_best
        else "-" + trial_id.removeprefix(experiment).strip(".-")[-_LONGEST_SUFFIX:]
    )
    settings["experiment"] = experiment[: _LONGEST_NAME - len(suffix)] + suffix
    body = yaml_io.dump(settings)
    return f"# Trial {trial_id} of experiment {experiment}, written by `attnfd-ray report --best-config`.\n{body}"
