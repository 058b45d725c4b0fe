"""What every command that runs jobs does around them: checks, a lock, worker groups."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import ray

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.checker.check import quick_check
from attnfd_ray.data.storage.image_cache import forget_memory
from attnfd_ray.errors import ClusterError, ConfigError
from attnfd_ray.runtime.cluster.connect import connected
from attnfd_ray.runtime.cluster.environment import LOOPBACK, on_loopback, ray_in_use
from attnfd_ray.runtime.cluster.estimate import Sizes
from attnfd_ray.runtime.cluster.nodes import Log, alive, node_watch
from attnfd_ray.runtime.cluster.preflight import (
    Capacity,
    WaitPolicy,
    disk_problems,
    node_problems,
    wait_for_capacity,
)
from attnfd_ray.runtime.cluster.versions import git_commit
from attnfd_ray.runtime.files.claims import claim_run_id, experiment_lock
from attnfd_ray.runtime.files.first_weights import first_weights, pinned
from attnfd_ray.runtime.jobs import interrupt
from attnfd_ray.runtime.jobs.client import broker_lost
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.runtime.jobs.worker_group import WorkerGroups
from attnfd_ray.runtime.network_checks import check_networks
from attnfd_ray.store import layout
from attnfd_ray.store.store import Store
from attnfd_ray.terms import Role


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What all jobs of a command share, and the open store; makes its jobs.

    `run_id` is the id of the run or the search. `search_id` is None for a run of `train`. The
    teacher is None until it is known, and for methods without one.
    """

    settings: ExperimentSettings
    store: Store
    run_id: str
    search_id: str | None = None
    data_hash: str | None = None
    git_commit: str | None = None
    teacher_file: str | None = None
    teacher_hash: str | None = None

    def job(
        self,
        trial_id: str,
        role: Role,
        settings: ExperimentSettings | None = None,
        searched: Mapping[str, Any] | None = None,
        kind: Literal["train", "score_teacher"] = "train",
    ) -> Job:
        """Return a job with these settings; None: those of the context."""
        return Job(
            kind=kind,
            trial_id=trial_id,
            role=role,
            settings_json=(settings or self.settings).model_dump_json(),
            search_id=self.search_id,
            searched=dict(searched or {}),
            teacher_file=self.teacher_file,
            teacher_hash=self.teacher_hash,
            data_hash=self.data_hash,
            git_commit=self.git_commit,
        )


@contextmanager
def open_experiment(
    settings: ExperimentSettings, command: Literal["train", "search"], *, fresh: bool, log: Log
) -> Iterator[tuple[RunContext, Sizes]]:
    """Check what needs no workers, lock the experiment, and yield its context and network sizes.

    The settings of the context have the hashes of the files that networks start from.
    """
    check_store_is_permanent(settings)
    summary = quick_check(settings.data)
    settings = pinned(settings)
    is_search = command == "search"
    if is_search:
        first_weights(settings)  # so that a missing file is found before the first trial
    sizes = check_networks(settings, summary.num_classes, searching=is_search, log=log)
    store = Store.open(settings.store, create=True)
    with experiment_lock(settings, command):
        run_id = claim_run_id(settings, command, fresh=fresh)
        interrupt.set_resumable()
        context = RunContext(
            settings=settings,
            store=store,
            run_id=run_id,
            data_hash=summary.data_hash,
            git_commit=git_commit(),
        )
        if is_search:
            context = replace(context, search_id=run_id)
        yield context, sizes


@contextmanager
def start_worker_groups(
    context: RunContext, find_capacity: Callable[[], Capacity], log: Log, *, verbose: bool
) -> Iterator[WorkerGroups]:
    """Start as many worker groups as the capacity allows, and remove Ray's files at the end.

    `log` gets a line for each node that is lost meanwhile.
    """
    # Ray needs a directory that every node sees; nothing in it is needed after the command
    storage = layout.new_session(context.settings.store, context.run_id)
    # of killed commands: we hold the lock, so they have ended
    for leftover in layout.sessions(context.settings.store, context.run_id):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with connected(verbose=verbose):
            capacity = find_capacity()
            addresses = {node["NodeManagerAddress"] for node in capacity.nodes}
            groups = WorkerGroups(
                capacity.shape,
                count=capacity.groups,
                name=storage.name,
                storage=storage,
                verbose=verbose,
                local=on_loopback() and addresses <= {LOOPBACK},
            )
            with groups, interrupt.stoppable(groups.interrupt), node_watch(log):
                yield groups
    except ray.exceptions.RayActorError as error:
        raise broker_lost(error) from None
    finally:
        shutil.rmtree(storage, ignore_errors=True)
        # after Ctrl-C, workers may use the images in memory until this process ends
        forget_memory(in_use_too=ray_in_use())


def checked_capacity(
    settings: ExperimentSettings,
    sizes: Sizes,
    *,
    asked: int | str,
    trials: int,
    wait_policy: WaitPolicy,
    log: Log,
) -> Capacity:
    """Return the capacity of the cluster, after a check of its nodes and of the disk.

    Raises CapacityError if it is not enough, and ClusterError for problems of a node or the disk.
    """
    while True:
        capacity = wait_for_capacity(
            settings, asked=asked, trials=trials, wait_policy=wait_policy, log=log
        )
        problems = [
            *node_problems(settings, capacity),
            *disk_problems(settings, capacity, sizes, trials=trials),
        ]
        if not problems:
            return capacity
        checked_nodes = {node["NodeID"] for node in capacity.nodes if node["Alive"]}
        if checked_nodes <= alive():
            raise ClusterError(problems)
        log("a node was lost during the check; checking the others again")


def check_store_is_permanent(settings: ExperimentSettings) -> None:
    """Raise ConfigError for a store in the working directory of a Ray job, which Ray deletes."""
    if "/runtime_resources/working_dir_files/" in settings.store:
        raise ConfigError(
            f"store: {settings.store} is deleted when the job ends; give an absolute path that "
            "lasts, with --set store=/shared/results or ATTNFD_STORE"
        )
