"""The plan of a search: what to run next, whether to go on with it, and where the search stands. No torch, no ray.

Trial 0 is the baseline (where the method has one), then comes the file as written, then what the sampler draws. The
number of a trial says its role and seeds its draw, so the plan needs nothing but the history of the store to go on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import TrialState

from attnfd_ray.config.overrides import baseline_of, with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.search.advisor import Advisor
from attnfd_ray.search.earlier import values_at
from attnfd_ray.search.objectives import worth
from attnfd_ray.search.records import GO_ON, Counts, Decision, PastTrial, Role, State, Suggestion, Warmth

_TOLD: dict[State, TrialState] = {
    "COMPLETE": TrialState.COMPLETE,
    "PRUNED": TrialState.PRUNED,
    "FAILED": TrialState.FAIL,
    "INFEASIBLE": TrialState.FAIL,
}


@dataclass(kw_only=True)
class _Trial:
    """A trial as this session knows it; `handle` is None where the sampler is told nothing of it."""

    trial_id: str
    index: int
    role: Role
    values: dict[str, Any]
    handle: optuna.Trial | None
    state: State = "RUNNING"
    epochs: dict[int, float] = field(default_factory=dict)
    best: float | None = None
    decision: Decision = GO_ON


class SearchPlan:
    """What a search tries, one suggestion at a time; one thread at a time.

    `history` is what this search did before; `earlier` are trials of others, for the sampler to learn from (`warmth`),
    and must be the same whenever the search goes on. Raises ConfigError where the sampler cannot search the space,
    cannot learn from `earlier`, or needs a package that is not there.
    """

    def __init__(
        self,
        settings: ExperimentSettings,
        *,
        search_id: str,
        history: Sequence[PastTrial] = (),
        earlier: Sequence[PastTrial] = (),
    ) -> None:
        self._settings = settings
        self._search_id = search_id
        self._advisor = Advisor(settings)
        self.warmth = self._advisor.learn(earlier) if earlier else Warmth()
        self._written = values_at(settings, settings.search)
        self._baseline = baseline_of(settings)
        self._roles = self._order()
        self._trials: dict[str, _Trial] = {}
        self._exhausted = False
        self._waiting = self._rebuild(history)

    def next(self) -> Suggestion | None:
        """Return what to run next, trials that were cut off first; None when there is nothing more to start."""
        if self._waiting:
            return self._suggestion(self._waiting.pop(0))
        index = self._free_index()
        if index is None:
            return None
        role = self._roles[index]
        if role == "trial":
            return self._sample(index)
        return self._suggestion(self._place(index, role, self._written if role == "as_written" else {}))

    def report(self, trial_id: str, epoch: int, value: float) -> Decision:
        """Take the val_miou of an epoch (from 1) and say whether the trial goes on.

        A trial once stopped stays so. An epoch told before and a value that is not finite change nothing.
        """
        trial = self._trials[trial_id]
        if trial.state != "RUNNING" or trial.decision.stop or epoch in trial.epochs or not math.isfinite(value):
            return trial.decision
        trial.epochs[epoch] = value
        trial.best = max(trial.epochs.values())
        if trial.handle is not None:
            trial.decision = self._advisor.judge(trial.handle, epoch, value)
        return trial.decision

    def finish(
        self, trial_id: str, state: State, value: float | None = None, measures: Mapping[str, float] | None = None
    ) -> None:
        """End a trial, once: a second end changes nothing.

        A complete trial is worth its best epoch, or `value` if that is more, and what of `measures` the search aims at.
        Complete with any of it missing or not finite is FAILED.
        """
        trial = self._trials[trial_id]
        assert state != "RUNNING", f"{trial_id}: RUNNING is no end"
        if trial.state != "RUNNING":
            return
        scores = [score for score in (trial.best, value) if score is not None]
        if state == "COMPLETE" and not (scores and all(map(math.isfinite, scores))):
            state = "FAILED"
        trial.best = max(filter(math.isfinite, scores), default=None)
        values = worth(self._settings.tune.metrics, trial.best, measures or {}) if state == "COMPLETE" else None
        trial.state = state = "FAILED" if state == "COMPLETE" and values is None else state
        if trial.handle is not None:
            self._advisor.tell(trial.handle, _TOLD[state], values)

    @property
    def is_done(self) -> bool:
        """Return whether nothing runs and nothing is left to start, as far as `next` has found out."""
        return not self._with("RUNNING") and (self._exhausted or self._free_index() is None)

    def counts(self) -> Counts:
        """Return where the search stands; failed trials have no say in what is best."""
        scores = {
            trial.trial_id: trial.best
            for trial in self._with("RUNNING", "COMPLETE", "PRUNED")
            if trial.best is not None and trial.role != "baseline"
        }
        best = max(scores, key=scores.__getitem__, default=None)
        return Counts(
            planned=max(len(self._roles), len(self._trials)),
            running=len(self._with("RUNNING")),
            complete=len(self._with("COMPLETE")),
            pruned=len(self._with("PRUNED")),
            failed=len(self._with("FAILED", "INFEASIBLE")),
            best_value=None if best is None else scores[best],
            best_trial_id=best,
            baseline_value=next((trial.best for trial in self._trials.values() if trial.role == "baseline"), None),
        )

    def _order(self) -> list[Role]:
        """Return the role of each trial by its number."""
        first: list[Role] = ["as_written"] if self._baseline in (None, self._settings) else ["baseline", "as_written"]
        return first + ["trial"] * (self._settings.tune.trials - 1 if self._settings.search else 0)

    def _with(self, *states: State) -> list[_Trial]:
        return [trial for trial in self._trials.values() if trial.state in states]

    def _free_index(self) -> int | None:
        """Return the lowest number not given yet; one handed out but lost before it was stored is given again."""
        given = {trial.index for trial in self._trials.values()}
        return next((index for index in range(len(self._roles)) if index not in given), None)

    def _sample(self, index: int) -> Suggestion | None:
        proposal = None if self._exhausted else self._advisor.propose(index)
        if proposal is None:
            self._exhausted = True
            return None
        return self._suggestion(self._add(index, "trial", proposal.values, proposal.trial), proposal.settings)

    def _place(self, index: int, role: Role, values: dict[str, Any]) -> _Trial:
        """Take up a trial the sampler did not draw; it is told of it if it lies in the space, the baseline apart."""
        # A setting searched only since the trial ran had the file's value then: the space may grow and keep history.
        handle = None if role == "baseline" else self._advisor.place(index, {**self._written, **values})
        return self._add(index, role, values, handle)

    def _add(self, index: int, role: Role, values: dict[str, Any], handle: optuna.Trial | None) -> _Trial:
        trial_id = f"{self._search_id}-{index:04d}"
        assert trial_id not in self._trials, f"{trial_id} stands in the history twice"
        trial = self._trials[trial_id] = _Trial(
            trial_id=trial_id, index=index, role=role, values=dict(values), handle=handle
        )
        return trial

    def _suggestion(self, trial: _Trial, settings: ExperimentSettings | None = None) -> Suggestion:
        if trial.role == "baseline":
            settings = self._baseline
        elif settings is None:
            settings = with_values(self._settings, trial.values)
        assert settings is not None, f"{trial.trial_id}: method '{self._settings.method.name}' has no baseline"
        return Suggestion(
            trial_id=trial.trial_id, index=trial.index, role=trial.role, values=dict(trial.values), settings=settings
        )

    def _rebuild(self, history: Sequence[PastTrial]) -> list[_Trial]:
        """Live through the history again, and return the trials that were cut off."""
        waiting: list[tuple[_Trial, PastTrial]] = []
        for past in sorted(history, key=lambda past: self._index(past.trial_id)):
            trial = self._place(self._index(past.trial_id), past.role, past.values)
            if past.state == "RUNNING":
                waiting.append((trial, past))
                continue
            self._replay(trial, past)
            last_value = max(past.epochs)[1] if past.epochs else None
            self.finish(trial.trial_id, past.state, last_value, past.measures)
        # Last, because the epoch such a trial was cut off at is judged again, by all that is known.
        for trial, past in waiting:
            self._replay(trial, past)
        return [trial for trial, _ in waiting]

    def _replay(self, trial: _Trial, past: PastTrial) -> None:
        """Report the epochs of the past; they went on from each but the last, whatever would be decided now."""
        for epoch, value in sorted(past.epochs):
            trial.decision = GO_ON
            self.report(trial.trial_id, epoch, value)

    def _index(self, trial_id: str) -> int:
        search_id, _, number = trial_id.rpartition("-")
        assert search_id == self._search_id, f"{trial_id} is not of search {self._search_id}"
        return int(number)
