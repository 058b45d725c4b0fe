"""The best trial's settings as a file for `attnfd-ray train`."""

from __future__ import annotations

import json
from pathlib import Path

from attnfd_ray.config import dialect
from attnfd_ray.errors import StoreError
from attnfd_ray.report.records import Report
from attnfd_ray.store.aside import write_whole
from attnfd_ray.store.store import Store

_LONGEST_NAME = 100  # of an experiment, see config.schema


def write_best_config(store: Store, report: Report, path: Path) -> str:
    """Write the best trial's settings as YAML and return its trial id; a file that says the same is left as it is.

    Raises StoreError when there is no best trial, when the file holds anything else, or when it cannot be written.
    """
    if report.shown is None or report.shown.best_trial_id is None:
        raise StoreError(f"{report.store}: no best config yet: no trial was completed with its full budget")
    text = best_config(store, report.shown.experiment, report.shown.best_trial_id)
    try:
        if not path.exists():
            write_whole(path, text.encode())
        elif path.read_bytes() != text.encode():
            raise StoreError(f"{path}: there already, with other content; move it away or give another name")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None
    return report.shown.best_trial_id


def best_config(store: Store, experiment: str, trial_id: str) -> str:
    """Return a trial's settings as the YAML of an experiment of its own: no search, and a name that says what it is."""
    rows = store.trials(columns=["trial_id", "config_json"]).to_pylist()
    config = next(row["config_json"] for row in rows if row["trial_id"] == trial_id)
    if not config:
        raise StoreError(f"{store.name}: trial '{trial_id}' carries no settings (config_json is empty)")
    settings = json.loads(config)
    for section in ("search", "tune"):
        settings.pop(section, None)
    suffix = "-best"
    settings["experiment"] = experiment[: _LONGEST_NAME - len(suffix)] + suffix
    body = dialect.dump(settings)
    return f"# Trial {trial_id} of experiment {experiment}, written by `attnfd-ray report --best-config`.\n{body}"
