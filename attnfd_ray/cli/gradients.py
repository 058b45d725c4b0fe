"""The warning that distillation dominates a training, by the gradients its epochs measured."""

from __future__ import annotations

from typing import Any

from attnfd_ray.config.gradients import MAX_RATIO, gradient_ratio
from attnfd_ray.runtime.jobs.messages import Job


class GradientWarnings:
    """Warns once per trial. Each view of a running command has one, and shows it in its own way."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def of(self, job: Job, metrics: dict[str, Any]) -> str | None:
        """Return the warning at the trial's first epoch with a ratio above the limit, else None."""
        ratio = gradient_ratio(metrics.get("gradient_norms") or {})
        if ratio is None or ratio <= MAX_RATIO or job.trial_id in self._warned:
            return None
        self._warned.add(job.trial_id)
        method = job.settings.method
        weight = "weight of the method's loss terms"
        if hasattr(method, "loss_weight"):  # a user's own method may have no such setting
            weight = "method.loss_weight"
        return (
            f"{job.trial_id} epoch {metrics['epoch']}: the gradient of {method.name} is "
            f"{ratio:.3g} times that of cross-entropy (above {MAX_RATIO:g} it can dominate the "
            f"training); try a lower {weight}"
        )
