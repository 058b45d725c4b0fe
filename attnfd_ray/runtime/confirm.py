"""What `attnfd-ray confirm` does: a search's leaders and best baseline, run again over seeds that
it never used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import ray

from attnfd_ray.analysis import trials
from attnfd_ray.analysis.confirmation import fresh_seeds, leaders
from attnfd_ray.analysis.records import TrialLine
from attnfd_ray.config.overrides import config_hash, with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.types import SEED
from attnfd_ray.errors import CheckpointError, RunFailed
from attnfd_ray.runtime.cluster.preflight import NO_WAIT, WaitPolicy
from attnfd_ray.runtime.commands import Result
from attnfd_ray.runtime.files.claims import check_searched
from attnfd_ray.runtime.files.first_weights import pinned, unpinned
from attnfd_ray.runtime.jobs.callback import Callback, Counts
from attnfd_ray.runtime.jobs.client import record_failure
from attnfd_ray.runtime.jobs.failure_policy import POLICIES, FailureBudget
from attnfd_ray.runtime.jobs.messages import INTERRUPTED, Event, Job
from attnfd_ray.runtime.jobs.worker_group import WorkerGroups
from attnfd_ray.runtime.session import (
    checked_capacity,
    open_experiment,
    start_worker_groups,
    with_teacher,
)
from attnfd_ray.search.baseline import without_teacher
from attnfd_ray.store.rows import BASELINES
from attnfd_ray.store.store import Store

_OVER = ("COMPLETE", "INFEASIBLE")  # what FAILED may do better the next time


def confirm(
    settings: ExperimentSettings,
    listener: Callback,
    *,
    top: int,
    seeds: int,
    verbose: bool = False,
    patience: WaitPolicy = NO_WAIT,
) -> Result:
    """Run the `top` leaders of the latest search, and its best baseline, over `seeds` fresh seeds
    each.

    Goes on where the same command stopped; more leaders or seeds add to what is there. The result's
    id is the search's. Raises ConfigError without a search, StoreError where it has no leader or no
    baseline.
    """
    check_searched(settings)
    with open_experiment(settings, "search", fresh=False, say=listener.on_stage) as (
        search_id,
        template,
        sizes,
    ):
        settings = template.settings
        store = Store.open(settings.store, create=False)
        rows = [
            trials.with_epochs(row, [])
            for row in store.trials(columns=trials.TRIAL_COLUMNS).to_pylist()
        ]
        template = dataclasses.replace(
            template, trial_id=f"{search_id}.confirm", role="confirm", search_id=search_id
        )
        jobs = jobs_of(settings, template, rows, top=top, seeds=seeds)
        over = {row["trial_id"] for row in rows if row["state"] in _OVER}
        left = [job for job in jobs if job.trial_id not in over]
        if not left:
            listener.on_stage(f"{search_id} is confirmed: nothing left to run")
            return Result(store=settings.store, id=search_id)
        listener.on_search_start(Counts(planned=len(jobs), complete=len(jobs) - len(left)))
        asked = settings.tune.concurrent
        room = partial(
            checked_capacity,
            settings,
            sizes,
            asked=asked,
            trials=len(left),
            patience=patience,
            say=listener.on_stage,
        )
        with start_worker_groups(
            settings, template, room, listener.on_stage, verbose=verbose
        ) as groups:
            taught = with_teacher(settings, groups, template, listener, searching=True)
            file, teacher_hash = taught.teacher_file, taught.teacher_hash
            left = [
                dataclasses.replace(job, teacher_file=file, teacher_hash=teacher_hash)
                for job in left
            ]
            run_all(
                left,
                groups,
                listener,
                FailureBudget(settings.tune.max_failures, again="attnfd-ray confirm FILE"),
            )
    return Result(store=settings.store, id=search_id)


def jobs_of(
    settings: ExperimentSettings, template: Job, rows: Sequence[trials.Row], *, top: int, seeds: int
) -> list[Job]:
    """Return a job for each leader and the baseline, seed after seed, whether it has run or not."""
    assert template.search_id is not None
    search_id = template.search_id
    used = {
        row["seed"] for row in rows if row["search_id"] == search_id and row["role"] != "confirm"
    }
    lines = leaders(rows, search_id=search_id, top=top)
    return [
        _job(settings, template, line, seed)
        for seed in fresh_seeds(settings.train.seed, used, seeds)
        for line in lines
    ]


def _job(settings: ExperimentSettings, template: Job, line: TrialLine, seed: int) -> Job:
    start = without_teacher(settings) if line.role in BASELINES else settings
    assert start is not None, f"{line.trial_id}: method '{settings.method.name}' has no baseline"
    values = {name: value for name, value in line.values.items() if name != SEED}
    assert line.config_hash is not None, "a trial that was run has settings"
    written = with_values(start, {**values, SEED: seed})
    # a trial of an older version does not know the hashes of its first weights
    again = next(
        (
            each
            for each in (pinned(written), unpinned(written))
            if config_hash(each) == line.config_hash
        ),
        None,
    )
    if again is None:
        raise CheckpointError(
            f"{line.trial_id} is not what these settings make of it now: the file of "
            "student.pretrained or "
            "teacher.pretrained may be another one than then; put that one back, or search again "
            "with --fresh"
        )
    return dataclasses.replace(
        template,
        trial_id=f"{template.trial_id}-{line.config_hash[:8]}-s{seed}",
        searched=values,
        settings_json=again.model_dump_json(),
    )


def run_all(
    jobs: Sequence[Job], groups: WorkerGroups, listener: Callback, tally: FailureBudget
) -> None:
    """Run jobs, as many at once as there are groups; one that fails is told, and the others go on.

    Raises RunFailed if no group is left or none completes, and what ends them all by the policy of
    failures.
    """
    waiting, running, num_complete, interrupted = list(jobs), dict[Any, Job](), 0, None
    while waiting or running:
        while waiting and len(running) < groups.count:
            job = waiting.pop(0)
            ray.get(groups.broker.submit.remote(job))
            listener.on_trial_start(job)
            running[groups.broker.pull.remote(job.trial_id, seen=0)] = job
        (heard,), _ = ray.wait(list(running))
        job, event = running.pop(heard), ray.get(heard)
        if event.kind == "epoch":
            listener.on_epoch_end(job, event.metrics)
            running[groups.broker.pull.remote(job.trial_id, seen=event.metrics["epoch"])] = job
        elif event.kind == "done":
            num_complete += 1
            listener.on_trial_end(job, "COMPLETE", event.metrics)
        elif event.failure_kind == INTERRUPTED:
            interrupted = tally.add(job.trial_id, *event.failed_with)
            waiting.clear()
            listener.on_trial_end(job, "UNFINISHED", dataclasses.asdict(event))
        else:
            _failed(job, event, groups, listener, tally)
    if interrupted:
        raise interrupted
    if not num_complete:
        raise RunFailed("no run was completed; `attnfd-ray report` says what became of each")


def _failed(
    job: Job, event: Event, groups: WorkerGroups, listener: Callback, tally: FailureBudget
) -> None:
    kind, text = event.failed_with
    # what ended for want of workers is still to be done, and stays RUNNING in the store
    if broken := ray.get(groups.broker.broken.remote()):
        raise RunFailed(f"confirm stopped: {broken}; the same command goes on with it")
    record_failure(job, kind, text)
    state = POLICIES[kind].state
    if state != "RUNNING":
        listener.on_trial_end(job, state.value, {"failure_kind": kind, "failure_text": text})
    if error := tally.add(job.trial_id, kind, text):
        raise error
