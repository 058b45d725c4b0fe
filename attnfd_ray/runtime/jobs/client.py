"""The driver's side of a job: submits it, follows its events, and records its failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ray

from attnfd_ray.errors import RunFailed
from attnfd_ray.runtime.jobs.failure_policy import POLICIES, failure
from attnfd_ray.runtime.jobs.messages import Event, Job
from attnfd_ray.store.rows import TrialRow
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState


def events(broker: Any, job: Job) -> Iterator[Event]:
    """Submit a job and yield its events; the last one is `done` or `failed`.

    The group waits with the next epoch until the next event is asked for, so the caller can cancel
    the job in between. A job that is known to the broker already is followed from where it is.
    """
    ray.get(broker.submit.remote(job))
    last_epoch = 0
    while True:
        event: Event = ray.get(broker.pull.remote(job.trial_id, last_epoch=last_epoch))
        yield event
        if event.kind != "epoch":
            return
        last_epoch = event.metrics["epoch"]


def run_job(
    broker: Any, job: Job, store: Store, on_epoch: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run a job to its end and return its last metrics; `on_epoch` gets those of each epoch.

    Raises the error of `failure_policy.failure` if the job fails.
    """
    for event in events(broker, job):
        if event.kind == "epoch":
            on_epoch(event.metrics)
        elif event.kind == "failed":
            record_failure(store, job, *event.failed_with)
            raise failure(job.trial_id, *event.failed_with)
    return event.metrics


def broker_lost(error: Exception) -> RunFailed:
    """Return the error of a command whose broker process has died."""
    reason = str(error).strip().partition("\n")[0]
    return RunFailed(
        f"Ray lost the broker process ({reason}); run the same command again to resume"
    )


def record_failure(store: Store, job: Job, kind: str, text: str) -> TrialState:
    """Write the state of a failed job's trial, by the policy of the failure, and return that state.

    Nothing is written for RUNNING, which means that the same command resumes the trial, nor for a
    trial that is not RUNNING in the store: a worker has written its end.
    """
    state = POLICIES[kind].state
    if state == TrialState.RUNNING:
        return state
    row = store.trial(job.trial_id)
    if row and row["state"] == TrialState.RUNNING:
        del row["time_utc"]  # the new row has a time of its own
        row["versions"] = dict(row["versions"] or ())
        failed = {"state": state, "failure_kind": kind, "failure_text": text}
        store.append_trial(TrialRow(**row | failed))
    return state
