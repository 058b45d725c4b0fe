"""The metrics that a search can optimise: mIoU, and beside it the student's size and latency.

No torch, no ray.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from attnfd_ray.config.base import value_error

MIOU = "val_miou"
PARAMS = "student_params"
LATENCY = "latency_ms"
# metric -> whether a higher value is better
METRICS = {MIOU: True, PARAMS: False, LATENCY: False}
_SIZE = ("student", "student.arch", "student.backbone", "student.width")
# metric -> the settings of the student that change it
CHANGED_BY = {PARAMS: _SIZE, LATENCY: (*_SIZE, "student.output_stride")}


def _metric(value: Any) -> Any:
    if value == MIOU or _is_list_of_metrics(value):
        return value
    others = ", ".join(CHANGED_BY)
    raise value_error(f"needs {MIOU}, or a list of it and one or more of {others}")


def _is_list_of_metrics(value: Any) -> bool:
    """Return whether a value is a list of two or more metrics, each once, with mIoU among them."""
    if not isinstance(value, list | tuple) or MIOU not in value:
        return False
    known = set(map(str, value)) & METRICS.keys()
    return len(value) >= 2 and len(value) == len(known)


Metric = Annotated[
    Literal["val_miou"] | tuple[Literal["val_miou", "student_params", "latency_ms"], ...],
    BeforeValidator(_metric),
]
