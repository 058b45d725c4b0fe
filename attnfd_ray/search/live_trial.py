"""A started trial of a search, as this process knows it. No torch, no ray."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import TrialState

from attnfd_ray.config.overrides import with_values
from attnfd_ray.config.types import SEED
from attnfd_ray.search.records import CONTINUE, Counts, Decision, Suggestion
from attnfd_ray.search.slots import Slot
from attnfd_ray.search.study_spec import StudySpec
from attnfd_ray.terms import BASELINES, State

_OPTUNA_STATE: dict[State, TrialState] = {
    "COMPLETE": TrialState.COMPLETE,
    "PRUNED": TrialState.PRUNED,
    "FAILED": TrialState.FAIL,
    "INFEASIBLE": TrialState.FAIL,
}

_SCORED = ("RUNNING", "COMPLETE", "PRUNED")


@dataclass(kw_only=True)
class LiveTrial:
    """A started trial.

    `handle` is Optuna's trial, or None where the sampler does not know this one. `epochs` are
    val_miou by epoch (from 1), and `best` is the highest val_miou so far.
    """

    slot: Slot
    spec: StudySpec
    values: dict[str, Any]
    seed: int
    handle: optuna.Trial | None
    state: State = "RUNNING"
    epochs: dict[int, float] = field(default_factory=dict)
    best: float | None = None
    decision: Decision = CONTINUE

    @property
    def is_baseline(self) -> bool:
        """Whether it trains the student without its teacher."""
        return self.slot.role in BASELINES

    @property
    def may_complete(self) -> bool:
        """Whether it is complete, or runs and was not stopped."""
        if self.state == "RUNNING":
            return not self.decision.stop
        return self.state == "COMPLETE"

    @property
    def all_values(self) -> dict[str, Any]:
        """Its values of all searched settings: the file's where it has none of its own."""
        return {**self.spec.file_values, **self.values}

    def report(self, epoch: int, value: float) -> Decision:
        """Report the value of an epoch to the study, and return whether the trial continues."""
        if self.handle is None or self.spec.study is None:
            return CONTINUE
        return self.spec.study.report(self.handle, epoch, value)

    def tell(self, values: list[float] | None) -> None:
        """End the trial in the study, with its objective values where it is complete."""
        if self.handle is None or self.spec.study is None:
            return
        if self.state == "INFEASIBLE":
            self.spec.study.forbid(self.all_values)
        state = _OPTUNA_STATE[self.state]
        self.spec.study.tell(self.handle, state, values)

    def suggestion(self) -> Suggestion:
        """Return the trial as it is handed out."""
        own_values = {SEED: self.seed, **self.values}
        return Suggestion(
            trial_id=self.slot.trial_id,
            index=self.slot.index,
            role=self.slot.role,
            values=dict(self.values),
            settings=with_values(self.spec.settings, own_values),
        )


def count_trials(trials: Collection[LiveTrial], *, planned: int) -> Counts:
    """Return the progress of a search. Failed trials do not count for the best values."""
    states = [trial.state for trial in trials]
    scored = [trial for trial in trials if trial.state in _SCORED]
    return Counts(
        planned=planned,
        complete=states.count("COMPLETE"),
        pruned=states.count("PRUNED"),
        failed=states.count("FAILED") + states.count("INFEASIBLE"),
        best_value=_best(trial for trial in scored if not trial.is_baseline),
        baseline_value=_best(trial for trial in scored if trial.is_baseline),
    )


def _best(trials: Iterable[LiveTrial]) -> float | None:
    values = [trial.best for trial in trials if trial.best is not None]
    return max(values, default=None)
