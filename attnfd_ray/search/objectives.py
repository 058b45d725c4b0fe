"""The values that the sampler optimises: mIoU, and the other metrics of `tune.metric`.

No optuna, no torch, no ray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attnfd_ray.config.metrics import CHANGED_BY, MIOU

MEASURED = tuple(CHANGED_BY)  # once per trial, at its end


def measured_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics measured at a trial's end.

    `row` is the trial's row in the store, or the last message of its worker.
    """
    return {name: row[name] for name in MEASURED if row.get(name) is not None}


def objective_values(
    metrics: Sequence[str], miou: float | None, measured: Mapping[str, float]
) -> list[float] | None:
    """Return a value for each metric, or None where one is missing or not finite."""
    known = {**measured, MIOU: miou}
    values: list[float] = []
    for name in metrics:
        value = known.get(name)
        if value is None or not math.isfinite(value):
            return None
        values.append(value)
    return values
