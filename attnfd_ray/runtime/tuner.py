"""A search plan run by Ray Tune: what Tune asks its searcher and its scheduler, the plan answers.

The plan lives in the driver and owns the Optuna study; it is rebuilt from the store, so nothing of
Tune's own state is kept or restored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from attnfd_ray.errors import AttnFDError, Interrupted, RunFailed, StoreError, UserError
from attnfd_ray.runtime.files.first_weights import pinned
from attnfd_ray.runtime.files.retention import delete_expired
from attnfd_ray.runtime.jobs.callback import Callback
from attnfd_ray.runtime.jobs.client import broker_lost, record_failure
from attnfd_ray.runtime.jobs.failure_policy import POLICIES, FailureBudget
from attnfd_ray.runtime.jobs.messages import INTERRUPTED, Job
from attnfd_ray.runtime.jobs.tune_trial import resources, trial
from attnfd_ray.runtime.jobs.worker_group import WorkerGroups
from attnfd_ray.search.objectives import measured_metrics
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import State, Suggestion
from attnfd_ray.store.store import Store

_MAPPINGS = ("loss_terms", "gradient_norms", "gradient_cosines")  # of an epoch's metrics
_TRIAL_PROCESS_LOSSES = (
    3  # the shell of a trial may die this often; its job goes on in its group meanwhile
)


class _PlanSearcher(Searcher):
    """Tune's searcher: suggestions as jobs, and how each trial ended."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__(metric="val_miou", mode="max")
        self._bridge = bridge

    def suggest(self, trial_id: str) -> Any:  # a config, or Searcher.FINISHED
        return self._bridge.suggest(trial_id)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._bridge.complete(trial_id, nested(result or {}), error=error)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the store is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class _PlanScheduler(FIFOScheduler):
    """Tune's scheduler: whether a trial goes on after an epoch."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        stop = self._bridge.epoch(trial.trial_id, nested(result))
        decision: str = TrialScheduler.STOP if stop else TrialScheduler.CONTINUE
        return decision


class _PlanStopper(tune.Stopper):
    """Tune's stopper: ends the trials under way when the search cannot go on; in the store they are
    RUNNING then.
    """

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        # after Ctrl-C each trial ends by itself, when its epoch is over and saved
        return self._bridge.fatal is not None and not isinstance(self._bridge.fatal, Interrupted)


class _Bridge:
    """Between Tune's ids and the plan's."""

    def __init__(
        self, plan: SearchPlan, groups: WorkerGroups, template: Job, listener: Callback
    ) -> None:
        self.plan, self.groups, self.template, self.listener = plan, groups, template, listener
        self.jobs: dict[str, Job] = {}
        self.heard: dict[str, int] = {}
        self.pruned: set[str] = set()
        self.num_unfinished = 0
        self.fatal: AttnFDError | None = None
        self.tally = FailureBudget(
            template.settings.tune.max_failures, again="attnfd-ray tune FILE --retry failed"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave nothing in the copies that Tune pickles for a restore of its own, which is never
        made.
        """
        return {}

    def suggest(self, tune_id: str) -> Any:
        suggestion = None if self.stopped() else self.plan.next()
        if suggestion is None:
            return Searcher.FINISHED
        try:
            job = job_of(suggestion, self.template)
        except (
            UserError
        ) as error:  # a file of first weights was there when the search began, and is gone
            self._end(error)
            return Searcher.FINISHED
        self.jobs[tune_id] = job
        self.listener.on_trial_start(job)
        return {"job": job, "broker": self.groups.name, "namespace": self.groups.namespace}

    def stopped(self) -> AttnFDError | None:
        """Return why the search cannot go on, or None."""
        if broken := self._ask("broken"):
            self._end(RunFailed(f"the search stopped: {broken}; the same command goes on with it"))
        return self.fatal

    def _end(self, error: AttnFDError) -> None:
        """End the search with this, unless it ends with something else already."""
        self.fatal = self.fatal or error

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Return what the broker answers; None without one, and the search is over then."""
        try:
            return ray.get(getattr(self.groups.broker, method).remote(*arguments))
        except ray.exceptions.RayActorError as error:
            self._end(broker_lost(error))
            return None

    def epoch(self, tune_id: str, metrics: dict[str, Any]) -> bool:
        job = self.jobs[tune_id]
        if "epoch" not in metrics or metrics["epoch"] <= self.heard.get(tune_id, 0):
            return False  # a failure, or what Tune repeats when a trial ends
        self.heard[tune_id] = metrics["epoch"]
        self.listener.on_epoch_end(job, metrics)
        decision = self.plan.report(job.trial_id, metrics["epoch"], metrics["val_miou"])
        if decision.stop:
            self.pruned.add(tune_id)
            self._ask("cancel", job.trial_id, decision.reason or "stopped early")
        return decision.stop

    def complete(self, tune_id: str, metrics: dict[str, Any], *, error: bool) -> None:
        job = self.jobs[tune_id]
        state: State
        if error or "failure_kind" in metrics:
            metrics = {
                "failure_kind": "WORKER_LOST",
                "failure_text": "the trial's process died",
            } | metrics
            if (
                error
            ):  # nobody follows it any more: its group ends the epoch, and leaves it to be done
                self._ask("cancel", job.trial_id, INTERRUPTED)
                state = "RUNNING"
            else:
                state = self._failed(job, metrics["failure_kind"], metrics["failure_text"])
        elif tune_id in self.pruned:
            state = "PRUNED"
        else:  # what Tune ended with the search is still to be done
            state = (
                "COMPLETE" if metrics.get("epoch", 0) >= job.settings.train.epochs else "RUNNING"
            )
        self.num_unfinished += state == "RUNNING"
        if state != "RUNNING":
            self.plan.finish(
                job.trial_id, state, metrics.get("best_miou"), measured_metrics(metrics)
            )
        self.listener.on_trial_end(job, "UNFINISHED" if state == "RUNNING" else state, metrics)

    def _failed(self, job: Job, kind: str, text: str) -> State:
        """Write that a job failed and count it; return how its trial stands, RUNNING where it is
        still to be done.
        """
        if kind == "WORKER_LOST" and self.stopped():
            return "RUNNING"  # for want of workers, not for what it did
        try:
            record_failure(job, kind, text)
        except StoreError as error:
            self._end(error)
            return "RUNNING"
        if end := self.tally.add(job.trial_id, kind, text):
            self._end(end)
        self.tidy()
        return POLICIES[kind].state.value

    def tidy(self) -> None:
        """Delete what the search needs no longer, where the driver wrote the end; workers do so
        after theirs.
        """
        settings, search_id = self.template.settings, self.template.search_id
        assert search_id is not None, "a search has an id"
        try:
            store, tune = Store.open(settings.store, create=False), settings.tune
            delete_expired(store, search_id, keep_weights=tune.keep_weights, metrics=tune.metrics)
        except StoreError as error:
            self._end(error)


def search(plan: SearchPlan, groups: WorkerGroups, template: Job, listener: Callback) -> None:
    """Run the plan to its end. Raises RunFailed if none completes, or what no trial can do
    without.
    """
    bridge = _Bridge(plan, groups, template, listener)
    tuner = tune.Tuner(
        tune.with_resources(trial, resources()),
        tune_config=tune.TuneConfig(
            search_alg=_PlanSearcher(bridge),
            scheduler=_PlanScheduler(bridge),
            num_samples=-1,  # until the plan says that it is finished
            max_concurrent_trials=groups.count,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(groups.storage),
            verbose=0,
            stop=_PlanStopper(bridge),
            failure_config=tune.FailureConfig(max_failures=_TRIAL_PROCESS_LOSSES),
        ),
    )
    tuner.fit()
    if error := bridge.stopped():
        raise error
    if bridge.num_unfinished:
        raise RunFailed(
            f"{bridge.num_unfinished} trial(s) were not followed to their end; the same command "
            "goes on with them"
        )
    if not plan.counts().complete:
        raise RunFailed("no trial was completed; `attnfd-ray report` says what became of each")


def nested(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics as they were reported: Tune makes `loss_terms/kd/logits` of `{loss_terms:
    {kd/logits: ...}}`.
    """
    metrics: dict[str, Any] = {}
    for key, value in result.items():
        name, slash, inside = key.partition("/")
        if slash and name in _MAPPINGS:
            metrics.setdefault(name, {})[inside] = value
        else:
            metrics[key] = value
    return metrics


def job_of(suggestion: Suggestion, template: Job) -> Job:
    """Return the job that runs a suggestion, with the hash of the file it starts from; raises as
    `pinned` does.
    """
    return dataclasses.replace(
        template,
        kind="train",
        trial_id=suggestion.trial_id,
        role=suggestion.role,
        searched=suggestion.values,
        settings_json=pinned(suggestion.settings).model_dump_json(),
    )
