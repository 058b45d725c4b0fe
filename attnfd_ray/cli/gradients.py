"""The warning that distillation takes over a training, from the gradients that its epochs
measured.
"""

from __future__ import annotations

from typing import Any

from attnfd_ray.config.gradients import MAX_RATIO, gradient_ratio
from attnfd_ray.runtime.jobs.messages import Job


class GradientWarnings:
    """Warns once per trial; each view of a running command has one, and shows the warning in its
    own way.
    """

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def of(self, job: Job, metrics: dict[str, Any]) -> str | None:
        """Return the warning where this epoch is the trial's first with a ratio above the limit,
        else None.
        """
        ratio = gradient_ratio(metrics.get("gradient_norms") or {})
        if ratio is None or ratio <= MAX_RATIO or job.trial_id in self._warned:
            return None
        self._warned.add(job.trial_id)
        method = job.settings.method
        # someone's own method may have no such setting
        what = (
            "method.loss_weight"
            if hasattr(method, "loss_weight")
            else "weight of the method's loss terms"
        )
        return (
            f"{job.trial_id} epoch {metrics['epoch']}: the gradient of {method.name} is "
            f"{ratio:.3g} times that of "
            f"cross-entropy (above {MAX_RATIO:g} it can take over the training); try a lower {what}"
        )
