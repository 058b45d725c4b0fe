"""The teacher of an experiment: found or trained before any student, loaded and scored once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnfd_ray.config.overrides import config_hash, digest, teacher_experiment
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.distill.method import method_class
from attnfd_ray.errors import CheckpointError
from attnfd_ray.ids import teacher_id
from attnfd_ray.run_files import BEST_WEIGHTS
from attnfd_ray.runtime.files.claims import file_lock
from attnfd_ray.runtime.files.first_weights import searches_method
from attnfd_ray.runtime.jobs.callback import Callback
from attnfd_ray.runtime.jobs.client import run_job
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.runtime.session import RunContext
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The file of a teacher's weights, and the hash by which rows name it."""

    file: str
    hash: str


def with_teacher(
    context: RunContext, broker: Any, callback: Callback, *, searching: bool = False
) -> RunContext:
    """Return the context with its teacher, which is trained first if need be.

    Without change if no method needs one: that of the file, or, if `searching`, one that the search
    may draw. Raises as `ready_teacher` does.
    """
    settings = context.settings
    is_needed = method_class(settings).needs_teacher or (searching and searches_method(settings))
    if settings.teacher is None or not is_needed:
        return context
    teacher = ready_teacher(context, broker, callback)
    return replace(context, teacher_file=teacher.file, teacher_hash=teacher.hash)


def ready_teacher(context: RunContext, broker: Any, callback: Callback) -> Teacher:
    """Return the experiment's teacher, trained first unless a file has it.

    Raises CheckpointError for a file that does not fit and for a teacher below `teacher.min_miou`,
    and the errors of `client.run_job` if the training fails.
    """
    settings = context.settings
    assert settings.teacher is not None
    if settings.teacher.checkpoint:
        return _scored_teacher(context, settings.teacher.checkpoint, broker, callback)
    training = teacher_experiment(settings)
    teacher_hash = digest([config_hash(training), training.train.seed, context.data_hash])
    # of no search: it serves all searches that have the same teacher
    own_context = replace(context, search_id=None, teacher_hash=teacher_hash)
    job = own_context.job(teacher_id(teacher_hash), "teacher", training)
    busy = f"{job.trial_id} is being trained by another command; wait for it, or stop it"
    with file_lock(settings.store, job.trial_id, busy):
        miou = _stored_miou(context.store, job)
        if miou is None:
            miou = _train(context, job, broker, callback)
        else:
            callback.on_stage(f"teacher {job.trial_id}: trained before, mIoU {100 * miou:.2f} %")
    file = str(_weights(job))
    _check_miou(settings, file, miou)
    return Teacher(file=file, hash=teacher_hash)


def _train(context: RunContext, job: Job, broker: Any, callback: Callback) -> float:
    """Train the teacher and return its best mIoU."""
    training = job.settings
    callback.on_stage(
        f"teacher {training.student.backbone}: {training.train.epochs} epochs, as {job.trial_id}"
    )
    metrics = run_job(
        broker, job, context.store, lambda metrics: callback.on_epoch_end(job, metrics)
    )
    callback.on_trial_end(job, "COMPLETE", metrics)
    miou: float = metrics["best_miou"]
    return miou


def _weights(job: Job) -> Path:
    return job.directory / BEST_WEIGHTS


def _stored_miou(store: Store, job: Job) -> float | None:
    """Return the score of a teacher that was trained before, or None."""
    columns = ["trial_id", "state", "best_val_miou"]
    for row in store.trials(columns=columns).to_pylist():
        is_complete = row["trial_id"] == job.trial_id and row["state"] == TrialState.COMPLETE
        if is_complete and _weights(job).is_file():
            miou: float | None = row["best_val_miou"]
            return miou
    return None


def _scored_teacher(context: RunContext, file: str, broker: Any, callback: Callback) -> Teacher:
    """Return the teacher of a file, loaded and scored once by a worker."""
    from attnfd_ray.models.files import model_hash

    teacher_hash = model_hash(Path(file))[:16]
    own_context = replace(context, teacher_file=file)
    job = own_context.job(f"score-{teacher_hash}", "teacher", kind="score_teacher")
    callback.on_stage(f"teacher {file}: scoring it on a few images")
    metrics = run_job(broker, job, context.store, lambda _: None)
    miou = metrics["val_miou"]
    callback.on_stage(f"teacher {file}: mIoU {100 * miou:.2f} % ({metrics['protocol']})")
    _check_miou(context.settings, file, miou)
    return Teacher(file=file, hash=teacher_hash)


def _check_miou(settings: ExperimentSettings, file: str, miou: float) -> None:
    assert settings.teacher is not None
    if miou < settings.teacher.min_miou:
        raise CheckpointError(
            f"{file}: the teacher scores mIoU {miou:.4f}, below teacher.min_miou "
            f"{settings.teacher.min_miou:g}; train it longer, check that it is of this dataset, or "
            "accept it with --set teacher.min_miou=0"
        )
