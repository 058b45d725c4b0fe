"""The commands `check`, `train` and `tune`: from checked settings to rows in the store."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.checker.check import quick_check
from attnfd_ray.runtime.cluster.capacity import alive_resources
from attnfd_ray.runtime.cluster.connect import connected
from attnfd_ray.runtime.cluster.nodes import Log
from attnfd_ray.runtime.cluster.preflight import NO_WAIT, WaitPolicy, arithmetic
from attnfd_ray.runtime.files.first_weights import pinned
from attnfd_ray.runtime.files.retention import delete_expired
from attnfd_ray.runtime.files.warm_start import earlier_trials, epochs_by_trial
from attnfd_ray.runtime.jobs.callback import Callback
from attnfd_ray.runtime.jobs.client import run_job
from attnfd_ray.runtime.network_checks import check_networks, searched_students
from attnfd_ray.runtime.session import (
    RunContext,
    check_store_is_permanent,
    checked_capacity,
    open_experiment,
    start_worker_groups,
)
from attnfd_ray.runtime.teacher import with_teacher
from attnfd_ray.runtime.tuner import search
from attnfd_ray.search.objectives import MEASURED, measured_metrics
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial
from attnfd_ray.search.warm_start import check_sampler
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState

_HISTORY = ("trial_id", "search_id", "role", "searched_json", "state", "seed")


@dataclass(frozen=True, kw_only=True)
class Result:
    """The store of a command, and the id of its run or search in the store."""

    store: str
    id: str


def check(settings: ExperimentSettings, wait_policy: WaitPolicy, log: Log) -> list[str]:
    """Return the arithmetic of an experiment that can start, one line each.

    Raises what prevents it from starting.
    """
    check_store_is_permanent(settings)
    summary = quick_check(settings.data)
    settings = pinned(settings)
    weights: list[str] = []
    sizes = check_networks(settings, summary.num_classes, log=weights.append)
    store = Store.open(settings.store, create=True)
    trials = 1
    if settings.search or settings.tune.baseline_trials:
        trials = SearchPlan(settings, search_id="check").counts().planned
    with connected():
        capacity = checked_capacity(
            settings,
            sizes,
            asked=settings.tune.concurrent,
            trials=trials,
            wait_policy=wait_policy,
            log=log,
        )
        student = "student"
        if any(searched_students(settings)):
            student = "largest student"
        return [
            (
                f"data: {summary.num_train} train and {summary.num_val} val images, "
                f"{summary.num_classes} classes, data_hash {summary.data_hash}"
            ),
            (
                f"networks: {sizes.student / 1e6:.2f} M parameters in the {student}, "
                f"{sizes.learned / 1e6:.2f} M trained"
            ),
            *weights,
            *arithmetic(settings, store, capacity, sizes, trials=trials),
            (
                f"nodes: {len(alive_resources(capacity.nodes))} can read the data and write the "
                "store, with the same versions"
            ),
            "go",
        ]


def train(
    settings: ExperimentSettings,
    callback: Callback,
    *,
    fresh: bool = False,
    verbose: bool = False,
    wait_policy: WaitPolicy = NO_WAIT,
) -> Result:
    """Train the student with the settings of the file; resume an earlier call, unless `fresh`."""
    log = callback.on_stage
    with open_experiment(settings, "train", fresh=fresh, log=log) as (context, sizes):
        result = Result(store=context.settings.store, id=context.run_id)
        row = context.store.trial(context.run_id)
        if row is not None and row["state"] == TrialState.COMPLETE:
            log(f"{context.run_id} is complete: nothing left to train")
            return result
        find_capacity = partial(
            checked_capacity,
            context.settings.model_copy(update={"search": {}}),  # files of a search are not needed
            sizes,
            asked=1,
            trials=1,
            wait_policy=wait_policy,
            log=log,
        )
        with start_worker_groups(context, find_capacity, log, verbose=verbose) as groups:
            context = with_teacher(context, groups.broker, callback)
            job = context.job(context.run_id, "run")
            callback.on_trial_start(job)
            metrics = run_job(
                groups.broker,
                job,
                context.store,
                lambda metrics: callback.on_epoch_end(job, metrics),
            )
            callback.on_trial_end(job, "COMPLETE", metrics)
    return result


def tune(
    settings: ExperimentSettings,
    callback: Callback,
    *,
    fresh: bool = False,
    warm_start: str | None = None,
    retry_failed: bool = False,
    verbose: bool = False,
    wait_policy: WaitPolicy = NO_WAIT,
) -> Result:
    """Search as `search:` and `tune:` of the file ask; resume an earlier call, unless `fresh`.

    Finished trials are not repeated. With `retry_failed`, FAILED trials resume from their last
    epoch; INFEASIBLE ones do not.
    """
    log = callback.on_stage
    # a space that the sampler cannot search is refused before anything is written
    SearchPlan(settings, search_id="check")
    if warm_start is not None:
        check_sampler(settings)
    with open_experiment(settings, "search", fresh=fresh, log=log) as (context, sizes):
        result = Result(store=context.settings.store, id=context.run_id)
        _delete_leftovers(context)
        plan = _plan(context, warm_start=warm_start, retry_failed=retry_failed, log=log)
        if plan.is_done:
            log(f"{context.run_id} is complete: nothing left to try")
            return result
        counts = plan.counts()
        callback.on_search_start(counts)
        find_capacity = partial(
            checked_capacity,
            context.settings,
            sizes,
            asked=context.settings.tune.concurrent,
            trials=counts.planned - counts.finished,
            wait_policy=wait_policy,
            log=log,
        )
        with start_worker_groups(context, find_capacity, log, verbose=verbose) as groups:
            context = with_teacher(context, groups.broker, callback, searching=True)
            search(plan, groups, context, callback)
    return result


def _delete_leftovers(context: RunContext) -> None:
    """Delete the files that an earlier, killed command would have deleted."""
    tune = context.settings.tune
    delete_expired(
        context.store, context.run_id, keep_weights=tune.keep_weights, metrics=tune.metrics
    )


def _plan(
    context: RunContext, *, warm_start: str | None, retry_failed: bool, log: Log
) -> SearchPlan:
    """Return the plan of the search, with its history and the trials it starts with."""
    settings = context.settings
    history = _history(context.store, context.run_id)
    if retry_failed:
        history = [_retried(past) for past in history]
    earlier = earlier_trials(
        settings, context.store, context.run_id, warm_start, has_begun=bool(history)
    )
    plan = SearchPlan(settings, search_id=context.run_id, history=history, earlier=earlier)
    if earlier:
        log(f"warm start: {plan.warm_start}")
    return plan


def _retried(past: PastTrial) -> PastTrial:
    """Return the trial, RUNNING if it is FAILED, so that it is resumed."""
    if past.state == TrialState.FAILED:
        return replace(past, state="RUNNING")
    return past


def _history(store: Store, search_id: str) -> list[PastTrial]:
    """Return the trials of a search that are in the store, without the runs of `confirm`."""
    epochs = epochs_by_trial(store)
    return [
        PastTrial(
            trial_id=row["trial_id"],
            role=row["role"],
            values=json.loads(row["searched_json"]),
            state=row["state"],
            seed=row["seed"],
            epochs=epochs.get(row["trial_id"], ()),
            measures=measured_metrics(row),
        )
        for row in store.trials(columns=[*_HISTORY, *MEASURED]).to_pylist()
        if row["search_id"] == search_id and row["role"] != "confirm"
    ]
