"""Asking a worker group to do one job and listening until it is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from attnfd_ray.errors import RunFailed
from attnfd_ray.runtime.jobs import Event, Job


def run_job(broker: Any, job: Job, on_epoch: Callable[[dict[str, Any]], None]) -> Event:
    """Have a job done; `on_epoch` hears the metrics of each epoch. Raises RunFailed if the job fails."""
    ray.get(broker.submit.remote(job))
    seen = 0
    while True:
        event: Event = ray.get(broker.pull.remote(job.trial_id, seen=seen))
        if event.kind == "failed":
            raise RunFailed(f"{job.trial_id}: {event.failure_kind}: {event.failure_text}")
        if event.kind == "done":
            return event
        seen = event.metrics["epoch"]
        on_epoch(event.metrics)
