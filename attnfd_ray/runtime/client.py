"""Asking a worker group to do one job and listening until it is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from attnfd_ray.errors import AttnFDError, DataError, RunFailed, UserError
from attnfd_ray.runtime.jobs import Event, Job


def run_job(broker: Any, job: Job, on_epoch: Callable[[dict[str, Any]], None]) -> Event:
    """Have a job done; `on_epoch` hears the metrics of each epoch.

    Raises what its failure is: DataError or another UserError where the user can mend it, RunFailed otherwise.
    """
    ray.get(broker.submit.remote(job))
    seen = 0
    while True:
        event: Event = ray.get(broker.pull.remote(job.trial_id, seen=seen))
        if event.kind == "failed":
            raise failure(job, event.failure_kind or "", event.failure_text or "")
        if event.kind == "done":
            return event
        seen = event.metrics["epoch"]
        on_epoch(event.metrics)


def failure(job: Job, kind: str, text: str) -> AttnFDError:
    """Return the error that a failed job is in the driver."""
    if kind == "DATA":
        return DataError(text)
    return UserError(text) if kind == "CONFIG" else RunFailed(f"{job.trial_id}: {kind}: {text}")
