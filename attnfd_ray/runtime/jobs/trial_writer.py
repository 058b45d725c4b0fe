"""Writes the rows of a job into the store: the start of an attempt, its epochs and its end."""

from __future__ import annotations

import dataclasses
import json
import platform
import resource
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from attnfd_ray.config.overrides import config_hash
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.runtime.cluster.versions import versions
from attnfd_ray.runtime.files.retention import delete_expired
from attnfd_ray.runtime.jobs.messages import Event, Job
from attnfd_ray.search.objectives import measured_metrics
from attnfd_ray.store.rows import EpochRow, TrialRow
from attnfd_ray.store.store import Store
from attnfd_ray.terms import FailureKind, TrialState
from attnfd_ray.train.evaluate import for_test, protocol
from attnfd_ray.train.latency import Latency
from attnfd_ray.train.records import EpochRecord, Outcome

_GRADIENTS = ("gradient_norms", "gradient_cosines")
# columns of a trial that its epochs have too
_SHARED = (
    "experiment",
    "search_id",
    "trial_id",
    "attempt",
    "seed",
    "method",
    "role",
    "protocol",
)


class TrialWriter:
    """Writes the rows of one attempt at a job; `stop_reason` is why the trial is stopped early."""

    def __init__(self, job: Job, store: Store, device: torch.device) -> None:
        """Write that the attempt has started."""
        self.job = job
        self.store = store
        self.stop_reason: str | None = None
        self._device = device
        self._columns = trial_columns(job, device, store.last_attempt(job.trial_id) + 1)
        times_s = store.epochs(job.trial_id, columns=["wall_s"])["wall_s"].to_pylist()
        self._wall_s: float = sum(time_s or 0.0 for time_s in times_s)
        store.append_trial(TrialRow(**self._columns, state=TrialState.RUNNING))

    def write_epoch(self, record: EpochRecord) -> None:
        """Append the row of an epoch."""
        values = dataclasses.asdict(record)
        del values["best_miou"], values["best_epoch"]
        for name in _GRADIENTS:
            values[name] = values[name] or None  # null: not measured
        shared = {name: self._columns[name] for name in _SHARED}
        self.store.append_epoch(EpochRow(**shared, **values))
        self._wall_s += record.wall_s

    def write_interrupted(self, text: str | None) -> None:
        """Write that the attempt is over, and that the trial resumes from its last checkpoint."""
        row = TrialRow(
            **self._columns,
            state=TrialState.RUNNING,
            failure_kind=FailureKind.INTERRUPTED,
            failure_text=text,
        )
        self.store.append_trial(row)

    def write_end(
        self, outcome: Outcome, class_names: Sequence[str], latency: Latency | None = None
    ) -> TrialRow:
        """Write the end of the trial, COMPLETE or PRUNED, and return its row."""
        last = outcome.last
        state = TrialState.COMPLETE
        stop_reason = None
        if outcome.stopped_early:
            state = TrialState.PRUNED
            stop_reason = self.stop_reason
        row = TrialRow(
            **self._columns,
            **self._test_columns(outcome),
            **_latency_columns(latency),
            class_names=list(class_names),
            state=state,
            stop_reason=stop_reason,
            best_val_miou=last.best_miou,
            best_epoch=last.best_epoch,
            last_val_miou=last.val_miou,
            epochs_done=last.epoch,
            student_params=outcome.student_params,
            checkpoint=str(outcome.best_weights),
            wall_s=self._wall_s,
            peak_mem_mib=peak_mem_mib(self._device),
        )
        self.store.append_trial(row)
        self.store.compact(self.job.trial_id)
        return row

    def delete_expired(self) -> None:
        """Delete the files that the search no longer needs, now that this trial has ended.

        Call it after the end was reported, so that the group's next trial finds the disk space.
        """
        if self.job.search_id is not None:
            tune = self.job.settings.tune
            delete_expired(
                self.store, self.job.search_id, keep_weights=tune.keep_weights, metrics=tune.metrics
            )

    def _test_columns(self, outcome: Outcome) -> dict[str, Any]:
        if outcome.test is None:
            return {}
        scores = dataclasses.asdict(outcome.test)
        columns: dict[str, Any] = {f"test_{name}": value for name, value in scores.items()}
        columns["test_protocol"] = protocol(for_test(self.job.settings.data))
        return columns


def _latency_columns(latency: Latency | None) -> dict[str, Any]:
    if latency is None:
        return {}
    return {"latency_ms": latency.ms, "latency_protocol": latency.protocol}


def stored_end(job: Job, store: Store) -> Event | None:
    """Return the `done` event of a job whose end is in the store, else None.

    The worker that wrote it died before it could report it.
    """
    trial = store.trial(job.trial_id)
    if trial is None or trial["state"] not in (TrialState.COMPLETE, TrialState.PRUNED):
        return None
    last = store.epochs(job.trial_id).to_pylist()[-1]
    for name in ("loss_terms", *_GRADIENTS):
        last[name] = dict(last[name] or ())
    last["best_miou"] = trial["best_val_miou"]
    last["best_epoch"] = trial["best_epoch"]
    record = EpochRecord(
        **{column.name: last[column.name] for column in dataclasses.fields(EpochRecord)}
    )
    return Event(
        kind="done", metrics=dataclasses.asdict(record) | final_objectives(job.settings, trial)
    )


def final_objectives(settings: ExperimentSettings, row: Mapping[str, Any]) -> dict[str, float]:
    """Return the search metrics that are measured once per trial, at its end, from its row."""
    measured = measured_metrics(row)
    return {name: value for name, value in measured.items() if name in settings.tune.metrics}


def trial_columns(job: Job, device: torch.device, attempt: int) -> dict[str, Any]:
    """Return the columns that all rows of an attempt share."""
    settings = job.settings
    device_name = platform.machine()
    if device.type == "cuda":
        device_name = torch.cuda.get_device_name(device)
    return {
        "experiment": settings.experiment,
        "search_id": job.search_id,
        "trial_id": job.trial_id,
        "attempt": attempt,
        "seed": settings.train.seed,
        "method": settings.method.name,
        "role": job.role,
        "config_json": job.settings_json,
        "config_hash": config_hash(settings),
        "searched_json": json.dumps(job.searched, sort_keys=True),
        "epochs_total": settings.train.epochs,
        "protocol": protocol(settings.data),
        "teacher_hash": job.teacher_hash,
        "data_hash": job.data_hash,
        "git_commit": job.git_commit,
        "versions": versions(),
        "host": socket.gethostname(),
        "device": f"{device.type} {device_name}",
    }


def peak_mem_mib(device: torch.device) -> float:
    """Return the peak memory in MiB.

    On a GPU: what torch has allocated there during this job. On a CPU: of the process, so far.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
