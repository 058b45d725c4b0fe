"""Runs a search plan with Ray Tune: Tune's searcher and scheduler ask the plan.

The plan lives in the driver and owns the Optuna study. It is rebuilt from the store, so none of
Tune's own state is saved or restored.
"""

from __future__ import annotations

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
from attnfd_ray.runtime.jobs.failure_policy import FailureBudget
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.runtime.jobs.tune_trial import resources, trial
from attnfd_ray.runtime.jobs.worker_group import WorkerGroups
from attnfd_ray.runtime.session import RunContext
from attnfd_ray.search.objectives import measured_metrics
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import Suggestion
from attnfd_ray.terms import FailureKind, State

_MAPPINGS = ("loss_terms", "gradient_norms", "gradient_cosines")  # of an epoch's metrics
_MAX_TRIAL_PROCESS_LOSSES = 3  # meanwhile, its job continues in its worker group


class _PlanSearcher(Searcher):
    """Tune's searcher: gets suggestions as jobs, and how each trial ended."""

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
        """Save nothing: the store has all that is needed."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class _PlanScheduler(FIFOScheduler):
    """Tune's scheduler: whether a trial continues after an epoch."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision: str = TrialScheduler.CONTINUE
        if self._bridge.epoch(trial.trial_id, nested(result)):
            decision = TrialScheduler.STOP
        return decision


class _PlanStopper(tune.Stopper):
    """Tune's stopper: ends the running trials when the search cannot continue.

    In the store, those trials stay RUNNING.
    """

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        # after Ctrl-C each trial ends by itself, when its epoch is over and saved
        return self._bridge.fatal is not None and not isinstance(self._bridge.fatal, Interrupted)


class _Bridge:
    """Maps Tune's trials to jobs, and calls plan, broker and callback."""

    def __init__(
        self, plan: SearchPlan, groups: WorkerGroups, context: RunContext, callback: Callback
    ) -> None:
        self.plan = plan
        self.groups = groups
        self.context = context
        self.callback = callback
        # by Tune's ids
        self.jobs: dict[str, Job] = {}
        self.last_epochs: dict[str, int] = {}
        self.pruned: set[str] = set()
        self.num_unfinished = 0
        self.fatal: AttnFDError | None = None
        self.budget = FailureBudget(
            context.settings.tune.max_failures, again="attnfd-ray tune FILE --retry failed"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles this object for a restore of its own, which we never do."""
        return {}

    def suggest(self, tune_id: str) -> Any:
        """Return the config of Tune's next trial, or Searcher.FINISHED."""
        if self.stopped():
            return Searcher.FINISHED
        suggestion = self.plan.next()
        if suggestion is None:
            return Searcher.FINISHED
        try:
            job = job_of(suggestion, self.context)
        except UserError as error:  # a file of first weights was deleted during the search
            self._end(error)
            return Searcher.FINISHED
        self.jobs[tune_id] = job
        self.callback.on_trial_start(job)
        return {"job": job, "broker": self.groups.name, "namespace": self.groups.namespace}

    def stopped(self) -> AttnFDError | None:
        """Return why the search cannot continue, or None."""
        if broken := self._ask_broker("broken"):
            self._end(
                RunFailed(f"the search stopped: {broken}; run the same command again to resume")
            )
        return self.fatal

    def _end(self, error: AttnFDError) -> None:
        """End the search with this error; the first one counts."""
        self.fatal = self.fatal or error

    def _ask_broker(self, method: str, *arguments: Any) -> Any:
        """Call a method of the broker; if its process is gone, end the search and return None."""
        try:
            return ray.get(getattr(self.groups.broker, method).remote(*arguments))
        except ray.exceptions.RayActorError as error:
            self._end(broker_lost(error))
            return None

    def epoch(self, tune_id: str, metrics: dict[str, Any]) -> bool:
        """Report an epoch to callback and plan; return whether the trial must stop."""
        job = self.jobs[tune_id]
        epoch = metrics.get("epoch", 0)
        if epoch <= self.last_epochs.get(tune_id, 0):
            return False  # a failure, or Tune repeats the last result when the trial ends
        self.last_epochs[tune_id] = epoch
        self.callback.on_epoch_end(job, metrics)
        decision = self.plan.report(job.trial_id, epoch, metrics["val_miou"])
        if decision.stop:
            self.pruned.add(tune_id)
            self._ask_broker("cancel", job.trial_id, decision.reason or "stopped early")
        return decision.stop

    def complete(self, tune_id: str, metrics: dict[str, Any], *, error: bool) -> None:
        """Report to plan and callback how a trial ended; `error`: its process has died."""
        job = self.jobs[tune_id]
        if error:
            lost = {
                "failure_kind": FailureKind.WORKER_LOST,
                "failure_text": "the trial's process died",
            }
            metrics = lost | metrics
        state = self._end_state(tune_id, metrics, error=error)
        if state == "RUNNING":
            self.num_unfinished += 1
            self.callback.on_trial_end(job, "UNFINISHED", metrics)
            return
        self.plan.finish(job.trial_id, state, metrics.get("best_miou"), measured_metrics(metrics))
        self.callback.on_trial_end(job, state, metrics)

    def _end_state(self, tune_id: str, metrics: dict[str, Any], *, error: bool) -> State:
        """Return the state of a trial that Tune has ended; RUNNING if it is to be resumed."""
        job = self.jobs[tune_id]
        if error:  # no process follows the job any more: stop it after its epoch
            self._ask_broker("cancel", job.trial_id, FailureKind.INTERRUPTED)
            return "RUNNING"
        if "failure_kind" in metrics:
            return self._failed(job, metrics["failure_kind"], metrics["failure_text"])
        if tune_id in self.pruned:
            return "PRUNED"
        if metrics.get("epoch", 0) >= job.settings.train.epochs:
            return "COMPLETE"
        return "RUNNING"  # Tune has ended it together with the search

    def _failed(self, job: Job, kind: str, text: str) -> State:
        """Record and count a failure; return the state of its trial."""
        if kind == FailureKind.WORKER_LOST and self.stopped():
            return "RUNNING"  # no worker group is left, which is not the job's fault
        try:
            state = record_failure(self.context.store, job, kind, text)
        except StoreError as error:
            self._end(error)
            return "RUNNING"
        if end := self.budget.add(job.trial_id, kind, text):
            self._end(end)
        self.delete_expired()
        return state.value

    def delete_expired(self) -> None:
        """Delete what the search no longer needs; after trials that a worker ends, it does so."""
        tune = self.context.settings.tune
        assert self.context.search_id is not None, "a search has an id"
        try:
            delete_expired(
                self.context.store,
                self.context.search_id,
                keep_weights=tune.keep_weights,
                metrics=tune.metrics,
            )
        except StoreError as error:
            self._end(error)


def search(plan: SearchPlan, groups: WorkerGroups, context: RunContext, callback: Callback) -> None:
    """Run the plan to its end.

    Raises RunFailed if no trial completes, and the error that ended the search early, if any.
    """
    bridge = _Bridge(plan, groups, context, callback)
    tuner = tune.Tuner(
        tune.with_resources(trial, resources()),
        tune_config=tune.TuneConfig(
            search_alg=_PlanSearcher(bridge),
            scheduler=_PlanScheduler(bridge),
            num_samples=-1,  # until the searcher says FINISHED
            max_concurrent_trials=groups.count,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(groups.storage),
            verbose=0,
            stop=_PlanStopper(bridge),
            failure_config=tune.FailureConfig(max_failures=_MAX_TRIAL_PROCESS_LOSSES),
        ),
    )
    tuner.fit()
    if error := bridge.stopped():
        raise error
    if bridge.num_unfinished:
        raise RunFailed(
            f"{bridge.num_unfinished} trial(s) were not followed to their end; run the same "
            "command again to resume them"
        )
    if not plan.counts().complete:
        raise RunFailed("no trial was completed; `attnfd-ray report` has the failure of each")


def nested(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics as they were reported.

    Tune flattens them: `{loss_terms: {kd/logits: 1}}` becomes `{loss_terms/kd/logits: 1}`.
    """
    metrics: dict[str, Any] = {}
    for key, value in result.items():
        name, slash, inside = key.partition("/")
        if slash and name in _MAPPINGS:
            metrics.setdefault(name, {})[inside] = value
        else:
            metrics[key] = value
    return metrics


def job_of(suggestion: Suggestion, context: RunContext) -> Job:
    """Return the job of a suggestion, with the hash of the file that its student starts from.

    Raises as `pinned` does.
    """
    settings = pinned(suggestion.settings)
    return context.job(suggestion.trial_id, suggestion.role, settings, suggestion.values)
