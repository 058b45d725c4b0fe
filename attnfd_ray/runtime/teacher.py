"""The teacher, before any student: found or trained, loaded strictly, and good enough to learn
from.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnfd_ray.config.overrides import config_hash, digest, teacher_experiment
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import CheckpointError
from attnfd_ray.runtime.files.claims import file_lock
from attnfd_ray.runtime.jobs.callback import Callback
from attnfd_ray.runtime.jobs.client import run_job
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A teacher's weights, and what tells them from others."""

    file: str
    hash: str


def ready_teacher(
    settings: ExperimentSettings, broker: Any, template: Job, listener: Callback
) -> Teacher:
    """Return the experiment's teacher, trained first if it has to be.

    `template` is a job of the experiment, to be filled in. Raises CheckpointError for a file that
    does not fit or a teacher below `teacher.min_miou`, and what `client.run_job` raises when its
    training fails.
    """
    assert settings.teacher is not None
    if settings.teacher.checkpoint:
        return _from_file(settings, settings.teacher.checkpoint, broker, template, listener)
    training = teacher_experiment(settings)
    teacher_hash = digest([config_hash(training), training.train.seed, template.data_hash])
    job = dataclasses.replace(
        template,
        kind="train",
        trial_id=f"teacher-{teacher_hash}",
        role="teacher",
        search_id=None,  # it serves every search that asks for the same one
        teacher_hash=teacher_hash,
        settings_json=training.model_dump_json(),
    )
    file = str(job.directory / "best.safetensors")
    busy = f"{job.trial_id} is being trained by another command; wait for it, or stop it"
    with file_lock(settings.store, job.trial_id, busy):
        miou = _miou_of_finished(settings, job)
        if miou is None:
            listener.on_stage(
                f"teacher {training.student.backbone}: {training.train.epochs} epochs, as "
                f"{job.trial_id}"
            )
            event = run_job(broker, job, lambda metrics: listener.on_epoch_end(job, metrics))
            listener.on_trial_end(job, "COMPLETE", event.metrics)
            miou = event.metrics["best_miou"]
        else:
            listener.on_stage(f"teacher {job.trial_id}: trained before, mIoU {100 * miou:.2f} %")
    _check(settings, file, miou)
    return Teacher(file=file, hash=teacher_hash)


def _miou_of_finished(settings: ExperimentSettings, job: Job) -> float | None:
    """Return the score of a teacher that is there already, or None."""
    columns = ["trial_id", "state", "best_val_miou"]
    trials = Store.open(settings.store, create=False).trials(columns=columns).to_pylist()
    known = [
        trial
        for trial in trials
        if trial["trial_id"] == job.trial_id and trial["state"] == "COMPLETE"
    ]
    return (
        known[0]["best_val_miou"]
        if known and (job.directory / "best.safetensors").is_file()
        else None
    )


def _from_file(
    settings: ExperimentSettings, file: str, broker: Any, template: Job, listener: Callback
) -> Teacher:
    from attnfd_ray.models.files import model_hash

    teacher_hash = model_hash(Path(file))
    job = dataclasses.replace(
        template,
        kind="score_teacher",
        trial_id=f"score-{teacher_hash[:16]}",
        role="teacher",
        teacher_file=file,
    )
    listener.on_stage(f"teacher {file}: a quick score")
    event = run_job(broker, job, lambda _: None)
    miou = event.metrics["val_miou"]
    listener.on_stage(f"teacher {file}: mIoU {100 * miou:.2f} % ({event.metrics['protocol']})")
    _check(settings, file, miou)
    return Teacher(file=file, hash=teacher_hash[:16])


def _check(settings: ExperimentSettings, file: str, miou: float) -> None:
    assert settings.teacher is not None
    if miou < settings.teacher.min_miou:
        raise CheckpointError(
            f"{file}: the teacher scores mIoU {miou:.4f}, below teacher.min_miou "
            f"{settings.teacher.min_miou:g}; "
            "train it longer, check that it is of this dataset, or take it with --set "
            "teacher.min_miou=0"
        )
