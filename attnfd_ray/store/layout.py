"""The paths in a store. No pyarrow.

attnfd_store.json            marks the directory as a store
trials/, epochs/             the tables, as Parquet parts
experiments/                 settings of runs and searches, their locks and earlier trials
runs/<trial id>/             checkpoints and weights of a trial
ray/<run id>-<8 hex>/        what Ray needs while a command runs
preflight/<token>/           what nodes write while a command is checked
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

TRIALS = "trials"
EPOCHS = "epochs"
EXPERIMENTS = "experiments"
RUNS = "runs"
RAY = "ray"
PREFLIGHT = "preflight"


def run_directory(store: str | Path, trial_id: str) -> Path:
    """Return the directory of a trial's checkpoints and weights."""
    return Path(store) / RUNS / trial_id


def experiments(store: str | Path) -> Path:
    """Return the directory of the settings of runs and searches."""
    return Path(store) / EXPERIMENTS


def settings_file(store: str | Path, run_id: str) -> Path:
    """Return the file with the settings of a run or a search."""
    return experiments(store) / f"{run_id}.json"


def lock_file(store: str | Path, name: str) -> Path:
    """Return the file that a command locks while it works under this name."""
    return experiments(store) / f"{name}.lock"


def earlier_trials_file(store: str | Path, search_id: str) -> Path:
    """Return the file with the trials of other searches that a search started with."""
    return experiments(store) / f"{search_id}.earlier.json"


def new_session(store: str | Path, run_id: str) -> Path:
    """Return a new directory, not made yet, for what Ray writes while a command runs."""
    return Path(store) / RAY / f"{run_id}-{uuid.uuid4().hex[:8]}"


def sessions(store: str | Path, run_id: str) -> Iterator[Path]:
    """Yield what commands on this run or search, or its `confirm`, have left for Ray."""
    pattern = re.compile(re.escape(run_id) + r"(\.confirm)?-[0-9a-f]{8}")
    for path in sorted((Path(store) / RAY).glob("*")):
        if pattern.fullmatch(path.name):
            yield path


def preflight(store: str | Path, token: str) -> Path:
    """Return the directory that nodes write to while a command is checked."""
    return Path(store) / PREFLIGHT / token
