"""The command `confirm`: runs a search's leaders and best baseline again with fresh seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray

from attnfd_ray.analysis import trials
from attnfd_ray.analysis.confirmation import fresh_seeds, leaders
from attnfd_ray.analysis.records import TrialLine
from attnfd_ray.config.overrides import config_hash, with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.types import SEED
from attnfd_ray.errors import AttnFDError, CheckpointError, RunFailed
from attnfd_ray.ids import confirm_id, confirm_prefix
from attnfd_ray.runtime.cluster.preflight import NO_WAIT, WaitPolicy
from attnfd_ray.runtime.commands import Result
from attnfd_ray.runtime.files.claims import check_searched
from attnfd_ray.runtime.files.first_weights import pinned, unpinned
from attnfd_ray.runtime.jobs.callback import Callback, Counts
from attnfd_ray.runtime.jobs.client import record_failure
from attnfd_ray.runtime.jobs.failure_policy import FailureBudget
from attnfd_ray.runtime.jobs.messages import Event, Job
from attnfd_ray.runtime.jobs.worker_group import WorkerGroups
from attnfd_ray.runtime.session import (
    RunContext,
    checked_capacity,
    open_experiment,
    start_worker_groups,
)
from attnfd_ray.runtime.teacher import with_teacher
from attnfd_ray.search.baseline import without_teacher
from attnfd_ray.store.store import Store
from attnfd_ray.terms import BASELINES, FailureKind, TrialState

_FINAL_STATES = (TrialState.COMPLETE, TrialState.INFEASIBLE)  # FAILED runs are tried again


def confirm(
    settings: ExperimentSettings,
    callback: Callback,
    *,
    top: int,
    seeds: int,
    verbose: bool = False,
    wait_policy: WaitPolicy = NO_WAIT,
) -> Result:
    """Run the `top` leaders of the latest search, and its best baseline, with `seeds` fresh seeds.

    Resumes an earlier call; more leaders or seeds add runs to those that are there. The result has
    the id of the search. Raises ConfigError without a search, and StoreError if the search has no
    leader or no baseline.
    """
    check_searched(settings)
    log = callback.on_stage
    with open_experiment(settings, "search", fresh=False, log=log) as (search_context, sizes):
        search_id = search_context.run_id
        result = Result(store=search_context.settings.store, id=search_id)
        context = replace(search_context, run_id=confirm_prefix(search_id))
        rows = [
            trials.with_epochs(row, [])
            for row in context.store.trials(columns=trials.TRIAL_COLUMNS).to_pylist()
        ]
        runs = planned_runs(context, rows, top=top, seeds=seeds)
        finished = {row["trial_id"] for row in rows if row["state"] in _FINAL_STATES}
        left = [run for run in runs if run.trial_id not in finished]
        if not left:
            log(f"{search_id} is confirmed: nothing left to run")
            return result
        callback.on_search_start(Counts(planned=len(runs), complete=len(runs) - len(left)))
        find_capacity = partial(
            checked_capacity,
            context.settings,
            sizes,
            asked=context.settings.tune.concurrent,
            trials=len(left),
            wait_policy=wait_policy,
            log=log,
        )
        with start_worker_groups(context, find_capacity, log, verbose=verbose) as groups:
            context = with_teacher(context, groups.broker, callback, searching=True)
            jobs = [run.job(context) for run in left]
            max_failures = context.settings.tune.max_failures
            budget = FailureBudget(max_failures, again="attnfd-ray confirm FILE")
            run_all(jobs, groups, context.store, callback, budget)
    return result


@dataclass(frozen=True, kw_only=True)
class ConfirmRun:
    """A config of the search, to be run again with a fresh seed."""

    trial_id: str
    settings: ExperimentSettings
    searched: dict[str, Any]

    def job(self, context: RunContext) -> Job:
        """Return the job of this run."""
        return context.job(self.trial_id, "confirm", self.settings, self.searched)


def planned_runs(
    context: RunContext, rows: Sequence[trials.Row], *, top: int, seeds: int
) -> list[ConfirmRun]:
    """Return a run per seed and config (leaders, baseline), seed by seed, with finished ones."""
    search_id = context.search_id
    assert search_id is not None
    used_seeds = {
        row["seed"] for row in rows if row["search_id"] == search_id and row["role"] != "confirm"
    }
    lines = leaders(rows, search_id=search_id, top=top)
    return [
        _run(context, line, seed)
        for seed in fresh_seeds(context.settings.train.seed, used_seeds, seeds)
        for line in lines
    ]


def _run(context: RunContext, line: TrialLine, seed: int) -> ConfirmRun:
    values = {name: value for name, value in line.values.items() if name != SEED}
    return ConfirmRun(
        trial_id=confirm_id(context.run_id, _hash_of(line), seed),
        settings=_settings_of(context.settings, line, values | {SEED: seed}),
        searched=values,
    )


def _hash_of(line: TrialLine) -> str:
    assert line.config_hash is not None, "a trial that was run has settings"
    return line.config_hash


def _settings_of(
    settings: ExperimentSettings, line: TrialLine, values: dict[str, Any]
) -> ExperimentSettings:
    """Return the settings of a trial's config.

    Raises CheckpointError if they are no longer those of the trial.
    """
    start: ExperimentSettings | None = settings
    if line.role in BASELINES:
        start = without_teacher(settings)
    assert start is not None, f"{line.trial_id}: method '{settings.method.name}' has no baseline"
    found = with_values(start, values)
    # trials of an older version do not have the hashes of their first weights
    for candidate in (pinned(found), unpinned(found)):
        if config_hash(candidate) == _hash_of(line):
            return candidate
    raise CheckpointError(
        f"{line.trial_id} had other settings than this file gives now: the file of "
        "student.pretrained or teacher.pretrained may have changed; restore it, or search again "
        "with --fresh"
    )


def run_all(
    jobs: Sequence[Job],
    groups: WorkerGroups,
    store: Store,
    callback: Callback,
    budget: FailureBudget,
) -> None:
    """Run jobs, as many at once as there are groups. If one fails, the others continue.

    Raises RunFailed if no group is left or no job completes, and the error of the budget.
    """
    runs = _Runs(jobs, groups, store, callback, budget)
    while runs.start_next():
        runs.handle_next_event()
    if runs.interrupted:
        raise runs.interrupted
    if not runs.num_complete:
        raise RunFailed("no run was completed; `attnfd-ray report` has the failure of each")


class _Runs:
    """Jobs that run at the same time; waits for whichever has the next event."""

    def __init__(
        self,
        jobs: Sequence[Job],
        groups: WorkerGroups,
        store: Store,
        callback: Callback,
        budget: FailureBudget,
    ) -> None:
        self._waiting = list(jobs)
        self._groups = groups
        self._store = store
        self._callback = callback
        self._budget = budget
        self._pulls: dict[Any, Job] = {}  # pending call -> job
        self.num_complete = 0
        self.interrupted: AttnFDError | None = None

    def start_next(self) -> bool:
        """Submit jobs until every group has one; return whether any job runs."""
        while self._waiting and len(self._pulls) < self._groups.count:
            job = self._waiting.pop(0)
            ray.get(self._groups.broker.submit.remote(job))
            self._callback.on_trial_start(job)
            self._pull(job, last_epoch=0)
        return bool(self._pulls)

    def _pull(self, job: Job, *, last_epoch: int) -> None:
        pull = self._groups.broker.pull.remote(job.trial_id, last_epoch=last_epoch)
        self._pulls[pull] = job

    def handle_next_event(self) -> None:
        """Wait for the next event of any job. Raises what ends the command."""
        (ready,), _ = ray.wait(list(self._pulls))
        job = self._pulls.pop(ready)
        event: Event = ray.get(ready)
        if event.kind == "epoch":
            self._callback.on_epoch_end(job, event.metrics)
            self._pull(job, last_epoch=event.metrics["epoch"])
        elif event.kind == "done":
            self.num_complete += 1
            self._callback.on_trial_end(job, "COMPLETE", event.metrics)
        elif event.failure_kind == FailureKind.INTERRUPTED:
            self.interrupted = self._budget.add(job.trial_id, *event.failed_with)
            self._waiting.clear()
            self._callback.on_trial_end(job, "UNFINISHED", dataclasses.asdict(event))
        else:
            self._handle_failure(job, *event.failed_with)

    def _handle_failure(self, job: Job, kind: str, text: str) -> None:
        # if no group is left, that is not the job's fault: it stays RUNNING in the store
        if broken := ray.get(self._groups.broker.broken.remote()):
            raise RunFailed(f"confirm stopped: {broken}; run the same command again to resume")
        state = record_failure(self._store, job, kind, text)
        if state != TrialState.RUNNING:
            failed = {"failure_kind": kind, "failure_text": text}
            self._callback.on_trial_end(job, state.value, failed)
        if error := self._budget.add(job.trial_id, kind, text):
            raise error
