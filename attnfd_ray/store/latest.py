"""Decides which of several rows of the same trial or epoch counts."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

EPOCH_KEY = ("trial_id", "epoch")
EPOCH_RANK = ("attempt", "time_utc")
TRIAL_KEY = ("trial_id",)
TRIAL_RANK = ("attempt", "final", "time_utc")


def latest_epochs(epochs: pa.Table) -> pa.Table:
    """Return one row per (trial_id, epoch), sorted by them.

    The highest attempt wins, then the latest `time_utc`.
    """
    return _last(epochs, EPOCH_KEY, EPOCH_RANK)


def latest_trials(trials: pa.Table) -> pa.Table:
    """Return one row per trial_id, sorted by it.

    The highest attempt wins, then a final state over RUNNING, then the latest `time_utc`.
    """
    marked = trials.append_column("final", pc.not_equal(trials["state"], "RUNNING"))
    return _last(marked, TRIAL_KEY, TRIAL_RANK).drop_columns("final")


def _last(table: pa.Table, key: Sequence[str], rank: Sequence[str]) -> pa.Table:
    """Return, for each value of `key`, the row that comes last in the order of `rank`."""
    order = [(name, "ascending") for name in (*key, *rank)]
    # stable: rows that tie in everything keep the order of the names of their parts
    table = table.take(pc.sort_indices(table, sort_keys=order))
    numbered = table.select(list(key)).append_column("row", pa.array(range(len(table)), pa.int64()))
    rows = numbered.group_by(list(key)).aggregate([("row", "max")])["row_max"]
    return table.take(rows.take(pc.sort_indices(rows)))
