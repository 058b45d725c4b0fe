"""Asking a worker group to do one job, and what becomes of a job that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from attnfd_ray.errors import RunFailed
from attnfd_ray.runtime.jobs.failure_policy import POLICIES, failure
from attnfd_ray.runtime.jobs.messages import Event, Job
from attnfd_ray.store.rows import TrialRow
from attnfd_ray.store.store import Store


def run_job(broker: Any, job: Job, on_epoch: Callable[[dict[str, Any]], None]) -> Event:
    """Have a job done; `on_epoch` hears the metrics of each epoch. Raises what `failure` says if it
    fails.
    """
    ray.get(broker.submit.remote(job))
    seen = 0
    while True:
        event: Event = ray.get(broker.pull.remote(job.trial_id, seen=seen))
        if event.kind == "failed":
            record_failure(job, *event.failed_with)
            raise failure(job.trial_id, *event.failed_with)
        if event.kind == "done":
            return event
        seen = event.metrics["epoch"]
        on_epoch(event.metrics)


def broker_lost(error: Exception) -> RunFailed:
    """Return what ends a command whose broker, a process of its own, has died."""
    reason = str(error).strip().partition("\n")[0]
    return RunFailed(
        f"Ray lost what served the workers ({reason}); the same command goes on with it"
    )


def record_failure(job: Job, kind: str, text: str) -> None:
    """Write that a trial failed, unless it is over already or still to be done."""
    state = POLICIES[kind].state
    if state == "RUNNING":
        return
    store = Store.open(job.settings.store, create=False)
    row = store.trial(job.trial_id)
    if row and row["state"] == "RUNNING":
        told = {"state": state, "failure_kind": kind, "failure_text": text}
        known = {name: value for name, value in row.items() if name != "time_utc"}
        store.append_trial(TrialRow(**known | told | {"versions": dict(row["versions"] or ())}))
