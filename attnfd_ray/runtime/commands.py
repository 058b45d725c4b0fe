"""What `attnfd-ray train` and `attnfd-ray tune` do, from checked settings to rows in the store."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.checker.check import quick_check
from attnfd_ray.runtime.cluster.capacity import alive_resources
from attnfd_ray.runtime.cluster.connect import connected
from attnfd_ray.runtime.cluster.preflight import NO_WAIT, Say, WaitPolicy, arithmetic
from attnfd_ray.runtime.files.first_weights import pinned
from attnfd_ray.runtime.files.retention import delete_expired
from attnfd_ray.runtime.files.warm_start import earlier_trials
from attnfd_ray.runtime.jobs.callback import Callback
from attnfd_ray.runtime.jobs.client import run_job
from attnfd_ray.runtime.session import (
    check_networks,
    check_store_is_permanent,
    checked_capacity,
    open_experiment,
    searched_students,
    start_worker_groups,
    with_teacher,
)
from attnfd_ray.runtime.tuner import search
from attnfd_ray.search.objectives import MEASURED, measured_metrics
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial
from attnfd_ray.search.warm_start import check_sampler
from attnfd_ray.store.store import Store

_HISTORY = ("trial_id", "search_id", "role", "searched_json", "state", "seed")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command leaves behind: the store, and the id of the run or search in it."""

    store: str
    id: str


def check(settings: ExperimentSettings, patience: WaitPolicy, say: Say) -> list[str]:
    """Return the arithmetic of an experiment that can go, a line each; raises what keeps it from
    going.
    """
    check_store_is_permanent(settings)
    summary = quick_check(settings.data)
    settings, weights = pinned(settings), list[str]()
    sizes = check_networks(settings, summary.num_classes, say=weights.append)
    Store.open(settings.store, create=True)
    is_search = settings.search or settings.tune.baseline_trials
    trials = SearchPlan(settings, search_id="check").counts().planned if is_search else 1
    with connected():
        room = checked_capacity(
            settings,
            sizes,
            asked=settings.tune.concurrent,
            trials=trials,
            patience=patience,
            say=say,
        )
        student = "largest student" if any(searched_students(settings)) else "student"
        images = f"{summary.num_train} train and {summary.num_val} val images, {summary.num_classes} classes"
        return [
            f"data: {images}, data_hash {summary.data_hash}",
            (
                f"networks: {sizes.student / 1e6:.2f} M parameters in the {student}, "
                f"{sizes.learned / 1e6:.2f} M learned"
            ),
            *weights,
            *arithmetic(settings, room, sizes, trials=trials),
            (
                f"nodes: {len(alive_resources(room.nodes))} can read the data and write the store, "
                "with the same versions"
            ),
            "go",
        ]


def train(
    settings: ExperimentSettings,
    listener: Callback,
    *,
    fresh: bool = False,
    verbose: bool = False,
    patience: WaitPolicy = NO_WAIT,
) -> Result:
    """Train the student as the settings stand; go on where the same command stopped."""
    with open_experiment(settings, "train", fresh=fresh, say=listener.on_stage) as (
        run_id,
        template,
        sizes,
    ):
        settings = template.settings
        known = Store.open(settings.store, create=False).trial(run_id)
        if known is not None and known["state"] == "COMPLETE":
            listener.on_stage(f"{run_id} is complete: nothing left to train")
            return Result(store=settings.store, id=run_id)
        alone = settings.model_copy(
            update={"search": {}}
        )  # files that only a search would draw are not needed
        room = partial(
            checked_capacity,
            alone,
            sizes,
            asked=1,
            trials=1,
            patience=patience,
            say=listener.on_stage,
        )
        with start_worker_groups(
            settings, template, room, listener.on_stage, verbose=verbose
        ) as groups:
            job = with_teacher(settings, groups, template, listener)
            listener.on_trial_start(job)
            event = run_job(groups.broker, job, lambda metrics: listener.on_epoch_end(job, metrics))
            listener.on_trial_end(job, "COMPLETE", event.metrics)
    return Result(store=settings.store, id=run_id)


def tune(
    settings: ExperimentSettings,
    listener: Callback,
    *,
    fresh: bool = False,
    warm_start: str | None = None,
    retry_failed: bool = False,
    verbose: bool = False,
    patience: WaitPolicy = NO_WAIT,
) -> Result:
    """Search as `search:` and `tune:` say; go on where the same command stopped, without repeating
    what is finished.

    With `retry_failed` trials that failed go on from their last epoch; those whose settings were at
    fault do not.
    """
    SearchPlan(
        settings, search_id="check"
    )  # a space that the sampler cannot search is refused before anything is kept
    if warm_start is not None:
        check_sampler(settings)
    with open_experiment(settings, "search", fresh=fresh, say=listener.on_stage) as (
        search_id,
        template,
        sizes,
    ):
        settings = template.settings
        # what a killed command did not come to
        store, aims = Store.open(settings.store, create=False), settings.tune.metrics
        delete_expired(store, search_id, keep_weights=settings.tune.keep_weights, metrics=aims)
        history = _history(settings, search_id)
        if retry_failed:
            history = [
                replace(past, state="RUNNING") if past.state == "FAILED" else past
                for past in history
            ]
        earlier = earlier_trials(settings, search_id, warm_start, has_begun=bool(history))
        plan = SearchPlan(settings, search_id=search_id, history=history, earlier=earlier)
        if earlier:
            listener.on_stage(f"warm start: {plan.warmth}")
        if plan.is_done:
            listener.on_stage(f"{search_id} is complete: nothing left to try")
            return Result(store=settings.store, id=search_id)
        listener.on_search_start(plan.counts())
        asked, left = settings.tune.concurrent, plan.counts().planned - plan.counts().finished
        room = partial(
            checked_capacity,
            settings,
            sizes,
            asked=asked,
            trials=left,
            patience=patience,
            say=listener.on_stage,
        )
        with start_worker_groups(
            settings, template, room, listener.on_stage, verbose=verbose
        ) as groups:
            template = replace(template, search_id=search_id)
            job = with_teacher(settings, groups, template, listener, searching=True)
            search(plan, groups, job, listener)
    return Result(store=settings.store, id=search_id)


def _history(settings: ExperimentSettings, search_id: str) -> list[PastTrial]:
    """Return what the store knows of a search; its leaders run again are no trials of its own."""
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
            seed=row["seed"],
            epochs=epochs.get(row["trial_id"], ()),
            measures=measured_metrics(row),
        )
        for row in store.trials(columns=[*_HISTORY, *MEASURED]).to_pylist()
        if row["search_id"] == search_id and row["role"] != "confirm"
    ]
