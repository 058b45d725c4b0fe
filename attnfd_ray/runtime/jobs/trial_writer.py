"""What a worker writes of a job into the store: an attempt, its epochs, its end."""

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
from attnfd_ray.runtime.jobs.messages import INTERRUPTED, Event, Job
from attnfd_ray.search.objectives import measured_metrics
from attnfd_ray.store.rows import EpochRow, TrialRow, TrialState
from attnfd_ray.store.store import Store
from attnfd_ray.train.evaluate import for_test, protocol
from attnfd_ray.train.latency import Latency
from attnfd_ray.train.records import EpochRecord, Outcome


@dataclasses.dataclass
class TrialWriter:
    """Keeps one attempt's rows in the store."""

    job: Job
    store: Store
    columns: dict[str, Any]
    earlier_wall_s: float
    epochs_wall_s: float = 0.0
    stop_reason: str | None = None

    @classmethod
    def open(cls, job: Job, device: torch.device) -> TrialWriter:
        store = Store.open(
            job.settings.store, create=False
        )  # the driver made it; not seen here, it is not shared
        known = trial_columns(job, device, store.last_attempt(job.trial_id) + 1)
        walls = store.epochs(job.trial_id, columns=["wall_s"])["wall_s"].to_pylist()
        store.append_trial(TrialRow(**known, state=TrialState.RUNNING))
        return cls(job, store, known, earlier_wall_s=sum(wall or 0.0 for wall in walls))

    @classmethod
    def ended(cls, job: Job) -> Event | None:
        """Return the end of a job that the store has already: whoever wrote it died before it was
        heard.
        """
        store = Store.open(job.settings.store, create=False)
        trial = store.trial(job.trial_id)
        if trial is None or trial["state"] not in (TrialState.COMPLETE, TrialState.PRUNED):
            return None
        last = store.epochs(job.trial_id).to_pylist()[-1]
        known = {
            column.name: last[column.name]
            for column in dataclasses.fields(EpochRecord)
            if column.name in last
        }
        known |= {
            name: dict(last[name] or ())
            for name in ("loss_terms", "gradient_norms", "gradient_cosines")
        }
        record = EpochRecord(
            **known, best_miou=trial["best_val_miou"], best_epoch=trial["best_epoch"]
        )
        return Event(
            kind="done", metrics=dataclasses.asdict(record) | final_objectives(job.settings, trial)
        )

    def write_epoch(self, record: EpochRecord) -> None:
        values = dataclasses.asdict(record)
        del values["best_miou"], values["best_epoch"]
        for name in ("gradient_norms", "gradient_cosines"):
            values[name] = values[name] or None  # null: not measured
        shared = (
            "experiment",
            "search_id",
            "trial_id",
            "attempt",
            "seed",
            "method",
            "role",
            "protocol",
        )
        self.store.append_epoch(EpochRow(**{name: self.columns[name] for name in shared}, **values))
        self.epochs_wall_s += record.wall_s

    def write_interrupted(self, text: str | None) -> None:
        """Write that the attempt is over and the trial is not: it goes on from the checkpoint it
        has just saved.
        """
        row = TrialRow(
            **self.columns, state=TrialState.RUNNING, failure_kind=INTERRUPTED, failure_text=text
        )
        self.store.append_trial(row)

    def write_end(
        self, outcome: Outcome, class_names: Sequence[str], latency: Latency | None = None
    ) -> TrialRow:
        last, test = outcome.last, outcome.test
        tested = (
            {f"test_{name}": value for name, value in dataclasses.asdict(test).items()}
            if test
            else {}
        )
        if test:
            tested["test_protocol"] = protocol(for_test(self.job.settings.data))
        row = TrialRow(
            **self.columns,
            **tested,
            class_names=list(class_names),
            state=TrialState.PRUNED if outcome.stopped_early else TrialState.COMPLETE,
            stop_reason=self.stop_reason if outcome.stopped_early else None,
            best_val_miou=last.best_miou,
            best_epoch=last.best_epoch,
            last_val_miou=last.val_miou,
            epochs_done=last.epoch,
            student_params=outcome.student_params,
            latency_ms=latency.ms if latency else None,
            latency_protocol=latency.protocol if latency else None,
            checkpoint=str(outcome.best_weights),
            wall_s=self.earlier_wall_s + self.epochs_wall_s,
            peak_mem_mib=peak_mem_mib(torch.device(self.columns["device"].split(" ")[0])),
        )
        self.store.append_trial(row)
        self.store.compact(self.job.trial_id)
        return row

    def tidy(self) -> None:
        """Make room for the group's next trial, now that the end of this one is written and
        told.
        """
        if self.job.search_id is not None:
            tune = self.job.settings.tune
            delete_expired(
                self.store, self.job.search_id, keep_weights=tune.keep_weights, metrics=tune.metrics
            )


def final_objectives(settings: ExperimentSettings, row: Mapping[str, Any]) -> dict[str, float]:
    """Return what no epoch tells of a trial that ended, where its search aims at it."""
    return {
        name: value
        for name, value in measured_metrics(row).items()
        if name in settings.tune.metrics
    }


def trial_columns(job: Job, device: torch.device, attempt: int) -> dict[str, Any]:
    """Return what every row of a trial says of itself."""
    settings = job.settings
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
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
        "device": f"{device.type} {name}",
    }


def peak_mem_mib(device: torch.device) -> float:
    """Return the most device memory this job had allocated; on a CPU, the most its process ever
    held.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
