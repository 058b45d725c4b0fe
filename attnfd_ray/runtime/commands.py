"""What `attnfd-ray train` and `attnfd-ray tune` do, from checked settings to rows in the store."""

from __future__ import annotations

import dataclasses
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.check import quick_check
from attnfd_ray.data.image_cache import forget_unused_memory
from attnfd_ray.distill.method import build_method, method_class
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.errors import ClusterError, ConfigError, RunFailed
from attnfd_ray.models import build_model, load_weights
from attnfd_ray.runtime.capacity import alive_resources
from attnfd_ray.runtime.client import run_job
from attnfd_ray.runtime.cluster import connected
from attnfd_ray.runtime.environment import on_loopback
from attnfd_ray.runtime.estimate import Sizes
from attnfd_ray.runtime.group import Groups
from attnfd_ray.runtime.jobs import Job
from attnfd_ray.runtime.listener import Listener
from attnfd_ray.runtime.preflight import (
    NO_PATIENCE,
    Patience,
    Room,
    Say,
    arithmetic,
    find_room,
    lacking_disk,
    problems_of_nodes,
)
from attnfd_ray.runtime.records import claim_id, locked
from attnfd_ray.runtime.teacher import ready_teacher
from attnfd_ray.runtime.tuner import search
from attnfd_ray.runtime.versions import git_commit
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial
from attnfd_ray.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command leaves behind: the store, and the id of the run or search in it."""

    store: str
    id: str


def check(settings: ExperimentSettings, patience: Patience, say: Say) -> list[str]:
    """Return the arithmetic of an experiment that can go, a line each; raises what keeps it from going."""
    _check_lasting(settings)
    summary = quick_check(settings.data)
    sizes = _check_networks(settings, summary.num_classes)
    Store.open(settings.store, create=True)
    trials = settings.tune.trials + 1 if settings.search else 1
    with connected():
        room = _room(settings, asked=settings.tune.concurrent, trials=trials, patience=patience, say=say)
        if lacking := lacking_disk(settings, room, sizes, trials=trials):
            raise ClusterError(lacking)
        images = f"{summary.num_train} train and {summary.num_val} val images, {summary.num_classes} classes"
        return [
            f"data: {images}, data_hash {summary.data_hash}",
            f"networks: {sizes.student / 1e6:.2f} M parameters in the student, {sizes.learned / 1e6:.2f} M learned",
            *arithmetic(settings, room, sizes, trials=trials),
            f"nodes: {len(alive_resources(room.nodes))} can read the data and write the store, with the same versions",
            "go",
        ]


def train(
    settings: ExperimentSettings,
    listener: Listener,
    *,
    fresh: bool = False,
    verbose: bool = False,
    patience: Patience = NO_PATIENCE,
) -> Result:
    """Train the student as the settings stand; go on where the same command stopped."""
    with _claimed(settings, "train", fresh=fresh) as (run_id, template):
        if _state(settings, run_id) == "COMPLETE":
            listener.stage(f"{run_id} is complete: nothing left to train")
            return Result(store=settings.store, id=run_id)
        room = partial(_room, settings, asked=1, trials=1, patience=patience, say=listener.stage)
        with _groups(settings, template, room, verbose=verbose) as groups:
            job = _with_teacher(settings, groups, template, listener)
            listener.started(job)
            event = run_job(groups.broker, job, lambda metrics: listener.epoch(job, metrics))
            listener.finished(job, "COMPLETE", event.metrics)
    return Result(store=settings.store, id=run_id)


def tune(
    settings: ExperimentSettings,
    listener: Listener,
    *,
    fresh: bool = False,
    verbose: bool = False,
    patience: Patience = NO_PATIENCE,
) -> Result:
    """Search as `search:` and `tune:` say; go on where the same command stopped, without repeating what is finished."""
    SearchPlan(settings, search_id="check")  # a space that the sampler cannot search is refused before anything is kept
    with _claimed(settings, "search", fresh=fresh) as (search_id, template):
        plan = SearchPlan(settings, search_id=search_id, history=_history(settings, search_id))
        if plan.is_done:
            listener.stage(f"{search_id} is complete: nothing left to try")
            return Result(store=settings.store, id=search_id)
        listener.begins(plan.counts())
        asked, left = settings.tune.concurrent, plan.counts().planned - plan.counts().finished
        room = partial(_room, settings, asked=asked, trials=left, patience=patience, say=listener.stage)
        with _groups(settings, template, room, verbose=verbose) as groups:
            template = dataclasses.replace(template, search_id=search_id)
            job = _with_teacher(settings, groups, template, listener, searching=True)
            search(plan, groups, job, listener)
    return Result(store=settings.store, id=search_id)


@contextmanager
def _claimed(settings: ExperimentSettings, command: str, *, fresh: bool) -> Iterator[tuple[str, Job]]:
    """Check what can be checked without workers, then hold the experiment; yield its id and a job to fill in."""
    _check_lasting(settings)
    summary = quick_check(settings.data)
    _check_networks(settings, summary.num_classes)
    Store.open(settings.store, create=True)
    with locked(settings, command):
        run_id = claim_id(settings, command, fresh=fresh)
        yield (
            run_id,
            Job(
                kind="train",
                trial_id=run_id,
                role="run",
                settings_json=settings.model_dump_json(),
                data_hash=summary.data_hash,
                git_commit=git_commit(),
            ),
        )


@contextmanager
def _groups(
    settings: ExperimentSettings, template: Job, find: Callable[[], Room], *, verbose: bool
) -> Iterator[Groups]:
    """Start as many worker groups as fit, and take their traces away at the end."""
    name = f"{template.trial_id}-{uuid.uuid4().hex[:8]}"
    # Ray wants a directory that every node sees; nothing in it is needed once the command is over
    storage = Path(settings.store) / "ray" / name
    # what a killed command has left; the lock says that it is dead
    for left in storage.parent.glob(f"{template.trial_id}-????????"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with connected(verbose=verbose):
            room = find()
            local = on_loopback() and len(alive_resources(room.nodes)) == 1
            with Groups(
                room.shape, count=room.groups, name=name, storage=storage, verbose=verbose, local=local
            ) as groups:
                yield groups
    except ray.exceptions.RayActorError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RunFailed(f"Ray lost what served the workers ({reason}); the same command goes on with it") from None
    finally:
        shutil.rmtree(storage, ignore_errors=True)
        forget_unused_memory()  # workers that were killed could not


def _room(settings: ExperimentSettings, *, asked: int | str, trials: int, patience: Patience, say: Say) -> Room:
    """Return the room there is; raises what is wrong with any node that would be part of it."""
    room = find_room(settings, asked=asked, trials=trials, patience=patience, say=say)
    if problems := problems_of_nodes(settings, room):
        raise ClusterError(problems)
    return room


def _with_teacher(
    settings: ExperimentSettings, groups: Groups, job: Job, listener: Listener, *, searching: bool = False
) -> Job:
    """Return the job with the teacher it learns from, if its method, or one that is searched, learns from one."""
    other_methods = searching and not settings.search.keys().isdisjoint({"method", "method.name"})
    if settings.teacher is None or not (other_methods or method_class(settings).needs_teacher):
        return job
    teacher = ready_teacher(settings, groups.broker, job, listener)
    return dataclasses.replace(job, teacher_file=teacher.file, teacher_hash=teacher.hash)


def _state(settings: ExperimentSettings, trial_id: str) -> str | None:
    trials = Store.open(settings.store, create=False).trials(columns=["trial_id", "state"]).to_pylist()
    return next((trial["state"] for trial in trials if trial["trial_id"] == trial_id), None)


def _history(settings: ExperimentSettings, search_id: str) -> list[PastTrial]:
    """Return what the store knows of a search."""
    store = Store.open(settings.store, create=False)
    epochs: dict[str, list[tuple[int, float]]] = {}
    for row in store.epochs(columns=["trial_id", "epoch", "val_miou"]).to_pylist():
        epochs.setdefault(row["trial_id"], []).append((row["epoch"], row["val_miou"]))
    return [
        PastTrial(
            trial_id=row["trial_id"],
            role=row["role"],
            values=json.loads(row["searched_json"]),
            state=row["state"],
            epochs=epochs.get(row["trial_id"], ()),
        )
        for row in store.trials(columns=["trial_id", "search_id", "role", "searched_json", "state"]).to_pylist()
        if row["search_id"] == search_id
    ]


def _check_networks(settings: ExperimentSettings, num_classes: int) -> Sizes:
    """Build both networks and the method once: weights or gates that do not fit are told before anything starts."""
    student = build_model(settings.student, num_classes=num_classes)
    teacher = None
    if settings.teacher is not None and method_class(settings).needs_teacher:
        network = build_model(settings.teacher, num_classes=num_classes)
        if settings.teacher.checkpoint:
            load_weights(network, Path(settings.teacher.checkpoint), num_classes=num_classes)
        teacher = FrozenTeacher(network)
    method, _ = build_method(settings, student, teacher)
    counts = [sum(parameter.numel() for parameter in module.parameters()) for module in (student, method)]
    return Sizes(student=counts[0], learned=sum(counts))


def _check_lasting(settings: ExperimentSettings) -> None:
    """Refuse a store inside the copy of the working directory that a Ray job runs in, and that ends with it."""
    if "/runtime_resources/working_dir_files/" in settings.store:
        raise ConfigError(
            f"store: {settings.store} is thrown away when the job ends; give an absolute path that lasts, "
            "with --set store=/shared/results or ATTNFD_STORE"
        )
