"""Asking a worker group to do one job, and what becomes of a job that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from attnfd_ray.errors import AttnFDError, ConfigError, DataError, Interrupted, RunFailed, StoreError, UserErrors
from attnfd_ray.runtime.jobs import INTERRUPTED, Event, Job
from attnfd_ray.store.rows import TrialRow, TrialState
from attnfd_ray.store.store import Store

FATAL = ("DATA", "STORE")  # every other job reads the same files and writes to the same disk


def run_job(broker: Any, job: Job, on_epoch: Callable[[dict[str, Any]], None]) -> Event:
    """Have a job done; `on_epoch` hears the metrics of each epoch. Raises what `failure` says if it fails."""
    ray.get(broker.submit.remote(job))
    seen = 0
    while True:
        event: Event = ray.get(broker.pull.remote(job.trial_id, seen=seen))
        if event.kind == "failed":
            kind, text = event.failure_kind or "", event.failure_text or ""
            if kind not in ("STORE", INTERRUPTED):
                settle(job, kind, text)
            raise failure(job, kind, text)
        if event.kind == "done":
            return event
        seen = event.metrics["epoch"]
        on_epoch(event.metrics)


def failure(job: Job, kind: str, text: str) -> AttnFDError:
    """Return the error that a failed job is in the driver: one of the user's where the user can mend it."""
    if kind == INTERRUPTED:
        return Interrupted("interrupted after the last epoch that had begun")
    several: dict[str, type[UserErrors]] = {"CONFIG": ConfigError, "DATA": DataError}
    if kind in several:
        return several[kind](text.splitlines())  # a table of taps, or all that is wrong with a list
    return StoreError(text) if kind == "STORE" else RunFailed(f"{job.trial_id}: {kind}: {text}")


def without_broker(error: Exception) -> RunFailed:
    """Return what ends a command whose broker, a process of its own, has died."""
    reason = str(error).strip().partition("\n")[0]
    return RunFailed(f"Ray lost what served the workers ({reason}); the same command goes on with it")


def state_of(kind: str) -> TrialState:
    """Return how a failed trial stands: INFEASIBLE where its settings are at fault and not its run."""
    return TrialState.INFEASIBLE if kind in ("NAN", "OOM") else TrialState.FAILED


def settle(job: Job, kind: str, text: str) -> None:
    """Write that a trial failed, unless it is over already."""
    store = Store.open(job.settings.store, create=False)
    rows = [row for row in store.trials().to_pylist() if row["trial_id"] == job.trial_id]
    if rows and rows[0]["state"] == "RUNNING":
        told = {"state": state_of(kind), "failure_kind": kind, "failure_text": text}
        known = {name: value for name, value in rows[0].items() if name != "time_utc"}
        store.append_trial(TrialRow(**known | told | {"versions": dict(rows[0]["versions"] or ())}))
