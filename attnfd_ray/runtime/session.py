"""What every command that runs jobs does around them: checks, a lock, worker groups and the
teacher.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from attnfd_ray.config.metrics import CHANGED_BY, PARAMS
from attnfd_ray.config.overrides import with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.spaces import Space
from attnfd_ray.data.checker.check import quick_check
from attnfd_ray.data.storage.image_cache import forget_memory
from attnfd_ray.distill.method import build_method, method_class
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.errors import AttnFDError, ClusterError, ConfigError
from attnfd_ray.models import SegmentationModel, build_model, load_weights
from attnfd_ray.runtime.cluster.connect import connected
from attnfd_ray.runtime.cluster.environment import LOOPBACK, on_loopback, ray_in_use
from attnfd_ray.runtime.cluster.estimate import Sizes
from attnfd_ray.runtime.cluster.nodes import alive, watched
from attnfd_ray.runtime.cluster.preflight import (
    Capacity,
    Say,
    WaitPolicy,
    lacking_disk,
    problems_of_nodes,
    wait_for_capacity,
)
from attnfd_ray.runtime.cluster.versions import git_commit
from attnfd_ray.runtime.files.claims import claim_run_id, locked
from attnfd_ray.runtime.files.first_weights import first_weights, pinned
from attnfd_ray.runtime.jobs import interrupt
from attnfd_ray.runtime.jobs.callback import Callback
from attnfd_ray.runtime.jobs.client import broker_lost
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.runtime.jobs.worker_group import WorkerGroups
from attnfd_ray.runtime.teacher import ready_teacher
from attnfd_ray.store.store import Store


@contextmanager
def open_experiment(
    settings: ExperimentSettings, command: str, *, fresh: bool, say: Say
) -> Iterator[tuple[str, Job, Sizes]]:
    """Check what can be checked without workers, then hold the experiment; yield its id, a job to
    fill in, sizes.

    The job's settings know the hashes of the files that networks start from.
    """
    check_store_is_permanent(settings)
    summary = quick_check(settings.data)
    settings = pinned(settings)
    if command == "search":
        first_weights(settings)  # none of its trials is to find out that a file is missing
    sizes = check_networks(settings, summary.num_classes, searching=command == "search", say=say)
    Store.open(settings.store, create=True)
    with locked(settings, command):
        run_id = claim_run_id(settings, command, fresh=fresh)
        interrupt.begin()
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
            sizes,
        )


@contextmanager
def start_worker_groups(
    settings: ExperimentSettings,
    template: Job,
    find: Callable[[], Capacity],
    say: Say,
    *,
    verbose: bool,
) -> Iterator[WorkerGroups]:
    """Start as many worker groups as fit, tell of nodes that go, and take their traces away at the
    end.
    """
    name = f"{template.trial_id}-{uuid.uuid4().hex[:8]}"
    # Ray wants a directory that every node sees; nothing in it is needed once the command is over
    storage = Path(settings.store) / "ray" / name
    # what a killed command has left; the lock says that it is dead
    for left in storage.parent.glob(f"{template.trial_id}-????????"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with connected(verbose=verbose):
            room = find()
            local = on_loopback() and all(
                node["NodeManagerAddress"] == LOOPBACK for node in room.nodes
            )
            with (
                WorkerGroups(
                    room.shape,
                    count=room.groups,
                    name=name,
                    storage=storage,
                    verbose=verbose,
                    local=local,
                ) as groups,
                interrupt.stoppable(groups.interrupt),
                watched(say),
            ):
                yield groups
    except ray.exceptions.RayActorError as error:
        raise broker_lost(error) from None
    finally:
        shutil.rmtree(storage, ignore_errors=True)
        # after Ctrl-C workers may live, and hold images, until this process is gone; nobody will
        # look at them then
        forget_memory(in_use_too=ray_in_use())


def checked_capacity(
    settings: ExperimentSettings,
    sizes: Sizes,
    *,
    asked: int | str,
    trials: int,
    patience: WaitPolicy,
    say: Say,
) -> Capacity:
    """Return the room there is; raises what is wrong with any node that would be part of it, or
    with the disk.
    """
    while True:
        room = wait_for_capacity(settings, asked=asked, trials=trials, patience=patience, say=say)
        problems = [
            *problems_of_nodes(settings, room),
            *lacking_disk(settings, room, sizes, trials=trials),
        ]
        if not problems:
            return room
        asked_ids = {node["NodeID"] for node in room.nodes if node["Alive"]}
        if asked_ids <= alive():
            raise ClusterError(problems)
        say("a node has gone while it was asked; looking again at what is left")


def with_teacher(
    settings: ExperimentSettings,
    groups: WorkerGroups,
    job: Job,
    listener: Callback,
    *,
    searching: bool = False,
) -> Job:
    """Return the job with the teacher it learns from, if its method, or one that is searched,
    learns from one.
    """
    other_methods = searching and not settings.search.keys().isdisjoint({"method", "method.name"})
    if settings.teacher is None or not (other_methods or method_class(settings).needs_teacher):
        return job
    teacher = ready_teacher(settings, groups.broker, job, listener)
    return dataclasses.replace(job, teacher_file=teacher.file, teacher_hash=teacher.hash)


def check_networks(
    settings: ExperimentSettings,
    num_classes: int,
    *,
    searching: bool = True,
    say: Say | None = None,
) -> Sizes:
    """Build both networks and the method once, so that weights or gates that do not fit end the
    command at its start.

    `say` hears what was taken from files of first weights. A search that varies the student may
    draw the largest there is, and the sizes are that one's.
    """
    student = build_model(settings.student, num_classes=num_classes)
    first_weights_of = {"student": student.first_weights}
    teacher = None
    if settings.teacher is not None and method_class(settings).needs_teacher:
        network = build_model(settings.teacher, num_classes=num_classes)
        if settings.teacher.checkpoint:
            load_weights(network, Path(settings.teacher.checkpoint), num_classes=num_classes)
        first_weights_of["teacher"] = network.first_weights
        teacher = FrozenTeacher(network)
    for name, text in first_weights_of.items():
        if say is not None and text is not None:
            say(f"{name}.pretrained: {text}")
    sizes = [_sizes(settings, student, teacher)]
    for other in searched_students(settings) if searching else ():
        with contextlib.suppress(AttnFDError):  # what cannot be built is told when its trial comes
            sizes.append(
                _sizes(other, build_model(other.student, num_classes=num_classes), teacher)
            )
    return Sizes(
        student=max(size.student for size in sizes), learned=max(size.learned for size in sizes)
    )


def searched_students(settings: ExperimentSettings) -> Iterator[ExperimentSettings]:
    """Yield the settings with every student that is searched, of a range of widths the widest; no
    first weights.
    """
    paths = [path for path in CHANGED_BY[PARAMS] if path in settings.search]
    for values in (
        itertools.product(*(_largest(settings.search[path]) for path in paths)) if paths else ()
    ):
        try:
            other = with_values(
                settings, dict(zip(paths, values, strict=True)) | {"student.pretrained": "none"}
            )
        except ValueError:  # pydantic's: these do not go together, and no trial has them
            continue
        yield other


def _largest(space: Space) -> list[Any]:
    """Return the values of a space, of numbers the greatest."""
    values = space.examples()
    return [max(values)] if all(isinstance(value, int | float) for value in values) else values


def _sizes(
    settings: ExperimentSettings, student: SegmentationModel, teacher: FrozenTeacher | None
) -> Sizes:
    method, _ = build_method(settings, student, teacher)
    counts = [
        sum(parameter.numel() for parameter in module.parameters()) for module in (student, method)
    ]
    return Sizes(student=counts[0], learned=sum(counts))


def check_store_is_permanent(settings: ExperimentSettings) -> None:
    """Refuse a store inside the copy of the working directory that a Ray job runs in, and that ends
    with it.
    """
    if "/runtime_resources/working_dir_files/" in settings.store:
        raise ConfigError(
            f"store: {settings.store} is thrown away when the job ends; give an absolute path "
            "that lasts, "
            "with --set store=/shared/results or ATTNFD_STORE"
        )
