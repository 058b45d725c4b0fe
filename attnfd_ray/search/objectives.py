"""What a trial is worth to the sampler: its mIoU, and what else the search aims at. No optuna, no
torch, no ray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attnfd_ray.config.metrics import CHANGED_BY, MIOU

MEASURED = tuple(CHANGED_BY)  # once a trial, at its end


def measured_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what was measured of a trial, from its row in the store or from what its worker said
    at its end.
    """
    return {name: row[name] for name in MEASURED if row.get(name) is not None}


def objective_values(
    metrics: Sequence[str], miou: float | None, measured: Mapping[str, float]
) -> list[float] | None:
    """Return a value for each metric, or None where one is missing or not finite."""
    known = {**measured, MIOU: miou}
    values = [
        value for name in metrics if (value := known.get(name)) is not None and math.isfinite(value)
    ]
    return values if len(values) == len(metrics) else None
