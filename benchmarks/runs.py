"""Prints a Markdown table of the runs and teachers in a store: which network, how long, which mIoU.

    python -m benchmarks.runs STORE

Nothing is trained here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState

_COLUMNS = ["trial_id", "role", "state", "config_json", "student_params"]
_COLUMNS += ["best_val_miou", "best_epoch", "last_val_miou", "epochs_total", "wall_s"]


def runs_table(store: Store) -> Iterator[str]:
    """Yield a row for each complete run and teacher, best first."""
    yield "| network | first weights | parameters, M | epochs | best mIoU, % | last, % | wall, s |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    rows = store.trials(columns=_COLUMNS).to_pylist()
    shown = [
        row
        for row in rows
        if row["role"] in ("run", "teacher") and row["state"] == TrialState.COMPLETE
    ]
    for row in sorted(shown, key=lambda row: row["best_val_miou"], reverse=True):
        yield _line(row)


def _line(row: dict[str, Any]) -> str:
    network = json.loads(row["config_json"])["student"]
    name = f"{network['arch']} on {network['backbone']}"
    if network["width"] != 1:
        name += f", width {network['width']:g}"
    cells = [
        name,
        network["pretrained"],
        f"{row['student_params'] / 1e6:.2f}",
        str(row["epochs_total"]),
        f"{100 * row['best_val_miou']:.2f} at {row['best_epoch']}",
        f"{100 * row['last_val_miou']:.2f}",
        f"{row['wall_s']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(runs_table(Store.open(sys.argv[1], create=False))))
