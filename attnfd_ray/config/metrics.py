"""What a search may aim at: mIoU alone, or beside it how large and how slow a student is. No torch,
no ray.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from attnfd_ray.config.base import value_error

MIOU = "val_miou"
PARAMS = "student_params"
LATENCY = "latency_ms"
# metric -> whether more of it is better; but for the first, settings of the student that change it
METRICS = {MIOU: True, PARAMS: False, LATENCY: False}
_SIZE = ("student", "student.arch", "student.backbone", "student.width")
CHANGED_BY = {PARAMS: _SIZE, LATENCY: (*_SIZE, "student.output_stride")}


def _metric(value: Any) -> Any:
    several = isinstance(value, list | tuple) and 2 <= len(value) == len(
        {*map(str, value)} & METRICS.keys()
    )
    if value != MIOU and not (several and MIOU in value):
        raise value_error(
            f"needs {MIOU}, or a list of it and one or more of {', '.join(CHANGED_BY)}"
        )
    return value


Metric = Annotated[
    Literal["val_miou"] | tuple[Literal["val_miou", "student_params", "latency_ms"], ...],
    BeforeValidator(_metric),
]
