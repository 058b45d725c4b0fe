"""Converts rows of the store to lines of a report. No torch, no ray.

What a row lacks because the trial never ended is taken from its epochs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from attnfd_ray.analysis.records import TrialLine
from attnfd_ray.terms import TrialState

Row = Mapping[str, Any]
Rows = Sequence[Row]

TRIAL_COLUMNS = (
    "experiment",
    "search_id",
    "trial_id",
    "role",
    "method",
    "seed",
    "state",
    "stop_reason",
    "failure_kind",
    "failure_text",
    "config_hash",
    "searched_json",
    "best_val_miou",
    "best_epoch",
    "last_val_miou",
    "epochs_done",
    "epochs_total",
    "protocol",
    "test_miou",
    "student_params",
    "teacher_hash",
    "wall_s",
    "peak_mem_mib",
    "time_utc",
    "config_json",
    "latency_ms",
    "latency_protocol",
)
EPOCH_COLUMNS = (
    "experiment",
    "trial_id",
    "epoch",
    "epochs_total",
    "val_miou",
    "protocol",
    "images_per_s",
    "wall_s",
)


def measured(value: float | None) -> float | None:
    """Return the number, or None where it is missing, NaN or infinite."""
    if value is None or not math.isfinite(value):
        return None
    return value


def config_of_row(row: Row) -> str:
    """Return an id that the trials of one config share: the hash, else the trial's own id."""
    return str(row["config_hash"] or row["trial_id"])


def with_epochs(trial: Row, epochs: Rows) -> dict[str, Any]:
    """Return a trial's row with missing values filled from its epochs, which are in order."""
    row = dict(trial)
    for name in ("best_val_miou", "last_val_miou", "test_miou", "wall_s", "peak_mem_mib"):
        row[name] = measured(row[name])
    if not epochs:
        return row
    if row["best_val_miou"] is None:
        scored = [epoch for epoch in epochs if measured(epoch["val_miou"]) is not None]
        if scored:
            best = max(scored, key=lambda epoch: float(epoch["val_miou"]))  # ties: the first
            row["best_val_miou"] = best["val_miou"]
            row["best_epoch"] = best["epoch"]
    last = epochs[-1]
    from_epochs = {
        "last_val_miou": measured(last["val_miou"]),
        "epochs_done": last["epoch"],
        "epochs_total": last["epochs_total"],
        "protocol": last["protocol"],
        "wall_s": sum(measured(epoch["wall_s"]) or 0.0 for epoch in epochs),
    }
    for name, value in from_epochs.items():
        if row[name] is None:
            row[name] = value
    return row


def line(row: Row) -> TrialLine:
    """Return the line of a report for a trial's row."""
    return TrialLine(
        trial_id=row["trial_id"],
        role=row["role"],
        method=row["method"],
        seed=row["seed"],
        state=TrialState(row["state"]),
        stop_reason=row["stop_reason"],
        config_hash=row["config_hash"],
        values=json.loads(row["searched_json"] or "{}"),
        best_val_miou=row["best_val_miou"],
        best_epoch=row["best_epoch"],
        last_val_miou=row["last_val_miou"],
        epochs_done=row["epochs_done"],
        epochs_total=row["epochs_total"],
        student_params=row["student_params"],
        wall_s=row["wall_s"],
        test_miou=row["test_miou"],
        failure_kind=row["failure_kind"],
        latency_ms=row["latency_ms"],
        latency_protocol=row["latency_protocol"],
    )
