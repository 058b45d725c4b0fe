"""The plan of a search: what to run next, whether to go on with it, and where the search stands. No
torch, no ray.

Trial 0 is the baseline (where the method has one), then comes the file as written, then trials that
tune the baseline (b1, b2, ..., counted apart, so that there may be more of them later), then what
the sampler draws. The number of a trial says its role and seeds its draw, so the plan needs nothing
but the history of the store to go on.
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
from attnfd_ray.config.types import SEED
from attnfd_ray.search.baseline import LOSS_WEIGHT, as_trained
from attnfd_ray.search.objectives import objective_values
from attnfd_ray.search.optuna_study import OptunaStudy
from attnfd_ray.search.records import (
    BASELINES,
    CONTINUE,
    Counts,
    Decision,
    PastTrial,
    Role,
    State,
    Suggestion,
    WarmStartSummary,
)
from attnfd_ray.search.study_spec import StudySpec, baselines, searched

_OPTUNA_STATE: dict[State, TrialState] = {
    "COMPLETE": TrialState.COMPLETE,
    "PRUNED": TrialState.PRUNED,
    "FAILED": TrialState.FAIL,
    "INFEASIBLE": TrialState.FAIL,
}


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """A trial to come: its number among those of its kind, and what it is."""

    trial_id: str
    index: int
    role: Role


@dataclass(kw_only=True)
class _Trial:
    """A trial as this session knows it; `handle` is None where the sampler is told nothing of
    it.
    """

    trial_id: str
    index: int
    role: Role
    series: StudySpec
    values: dict[str, Any]
    seed: int
    handle: optuna.Trial | None
    state: State = "RUNNING"
    epochs: dict[int, float] = field(default_factory=dict)
    best: float | None = None
    decision: Decision = CONTINUE


class SearchPlan:
    """What a search tries, one suggestion at a time; one thread at a time.

    `history` is what this search did before; `earlier` are trials of others, for the sampler to
    learn from (`warmth`), and must be the same whenever the search goes on. Raises ConfigError
    where the sampler cannot search the space, cannot learn from `earlier`, or needs a package that
    is not there.
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
        self._advisor = OptunaStudy(settings)
        self.warmth = self._advisor.add_trials(earlier) if earlier else WarmStartSummary()
        self._main = searched(settings, self._advisor)
        are_tuned = settings.tune.baseline_trials > 0 or any(
            past.role == "baseline_trial" for past in history
        )
        self._baselines = baselines(settings, are_tuned=are_tuned)
        self._slots = self._order()
        self._trials: dict[str, _Trial] = {}
        self._exhausted: set[Role] = set()
        self._waiting = self._rebuild(history)

    def next(self) -> Suggestion | None:
        """Return what to run next, trials that were cut off first; None when there is nothing more
        to start.
        """
        if self._waiting:
            return self._suggestion(self._waiting.pop(0))
        while (slot := self._free_slot()) is not None:
            if slot.role in ("baseline", "as_written"):
                values = self._main.file_values if slot.role == "as_written" else {}
                return self._suggestion(self._place(slot, values, self._settings.train.seed))
            trial = self._sample(slot)
            if trial is not None:
                return self._suggestion(trial)
            self._exhausted.add(slot.role)
        return None

    def report(self, trial_id: str, epoch: int, value: float) -> Decision:
        """Take the val_miou of an epoch (from 1) and say whether the trial goes on.

        A trial once stopped stays so. An epoch told before and a value that is not finite change
        nothing; an epoch before the last, trained again after a loss, was gone on from.
        """
        trial = self._trials[trial_id]
        if epoch < max(trial.epochs, default=0):
            return CONTINUE
        if (
            trial.state != "RUNNING"
            or trial.decision.stop
            or epoch in trial.epochs
            or not math.isfinite(value)
        ):
            return trial.decision
        trial.epochs[epoch] = value
        trial.best = max(trial.epochs.values())
        if trial.handle is not None and trial.series.study is not None:
            decision = trial.series.study.report(trial.handle, epoch, value)
            trial.decision = (
                CONTINUE if decision.stop and self._has_its_whole_budget(trial) else decision
            )
        return trial.decision

    def finish(
        self,
        trial_id: str,
        state: State,
        value: float | None = None,
        measures: Mapping[str, float] | None = None,
    ) -> None:
        """End a trial, once: a second end changes nothing.

        A complete trial is worth its best epoch, or `value` if that is more, and what of `measures`
        the search aims at. Complete with any of it missing or not finite is FAILED.
        """
        trial = self._trials[trial_id]
        assert state != "RUNNING", f"{trial_id}: RUNNING is no end"
        if trial.state != "RUNNING":
            return
        scores = [score for score in (trial.best, value) if score is not None]
        if state == "COMPLETE" and not (scores and all(map(math.isfinite, scores))):
            state = "FAILED"
        trial.best = max(filter(math.isfinite, scores), default=None)
        values = (
            objective_values(trial.series.metrics, trial.best, measures or {})
            if state == "COMPLETE"
            else None
        )
        trial.state = state = "FAILED" if state == "COMPLETE" and values is None else state
        if trial.handle is not None and trial.series.study is not None:
            if state == "INFEASIBLE":
                trial.series.study.forbid({**trial.series.file_values, **trial.values})
            trial.series.study.tell(trial.handle, _OPTUNA_STATE[state], values)

    @property
    def is_done(self) -> bool:
        """Return whether nothing runs and nothing is left to start, as far as `next` has found
        out.
        """
        return not self._with("RUNNING") and self._free_slot() is None

    def counts(self) -> Counts:
        """Return where the search stands; failed trials have no say in what is best."""
        scored = [
            trial for trial in self._with("RUNNING", "COMPLETE", "PRUNED") if trial.best is not None
        ]
        best = _best([trial for trial in scored if trial.role not in BASELINES])
        baseline = _best([trial for trial in scored if trial.role in BASELINES])
        return Counts(
            planned=len({slot.trial_id for slot in self._slots} | self._trials.keys()),
            complete=len(self._with("COMPLETE")),
            pruned=len(self._with("PRUNED")),
            failed=len(self._with("FAILED", "INFEASIBLE")),
            best_value=best.best if best else None,
            baseline_value=baseline.best if baseline else None,
        )

    def _order(self) -> list[_Slot]:
        """Return the trials of the whole search in the order they are begun."""
        has_own = baseline_of(self._settings) not in (None, self._settings)
        first: list[Role] = ["baseline", "as_written"] if has_own else ["as_written"]
        drawn: list[Role] = ["trial"] * (
            self._settings.tune.trials - 1 if self._settings.search else 0
        )
        slots = [
            _Slot(trial_id=f"{self._search_id}-{index:04d}", index=index, role=role)
            for index, role in enumerate(first + drawn)
        ]
        slots[len(first) : len(first)] = [
            _Slot(trial_id=f"{self._search_id}-b{index:04d}", index=index, role="baseline_trial")
            for index in range(1, self._settings.tune.baseline_trials + 1)
        ]
        return slots

    def _has_its_whole_budget(self, trial: _Trial) -> bool:
        """Return whether early stopping has no say: for the baseline itself, and for further seeds
        of a config.

        A mean over seeds counts those that had their whole budget. If the poor ones were stopped,
        the lucky ones would be left. So no seed is stopped where an earlier one of the same config
        is complete, or still on its way.
        """
        series = trial.series
        config = self._config(trial, series)
        return trial.role == "baseline" or any(
            other.state == "COMPLETE" or (other.state == "RUNNING" and not other.decision.stop)
            for other in self._trials.values()
            if (other.series is series or other.role == "baseline")
            and other.index < trial.index
            and self._config(other, series) == config
        )

    def _config(self, trial: _Trial, series: StudySpec) -> dict[str, Any]:
        """Return what the seeds of a config share, in a series; in what is searched the baseline is
        a weight of 0.
        """
        values = {**trial.series.file_values, **trial.values}
        if trial.role == "baseline" and series is self._main:
            values = {**series.file_values, LOSS_WEIGHT: 0.0}
        return {path: value for path, value in as_trained(values).items() if path != SEED}

    def _with(self, *states: State) -> list[_Trial]:
        return [trial for trial in self._trials.values() if trial.state in states]

    def _free_slot(self) -> _Slot | None:
        """Return the first trial not given yet; one handed out but lost before it was stored is
        given again.
        """
        free = (slot for slot in self._slots if slot.trial_id not in self._trials)
        return next((slot for slot in free if slot.role not in self._exhausted), None)

    def _series_of(self, role: Role) -> StudySpec:
        return self._baselines if role in BASELINES else self._main

    def _sample(self, slot: _Slot) -> _Trial | None:
        advisor = self._series_of(slot.role).study
        proposal = advisor.ask(slot.index) if advisor else None
        if proposal is None:
            return None
        return self._add(slot, proposal.values, proposal.settings.train.seed, proposal.trial)

    def _place(self, slot: _Slot, values: dict[str, Any], seed: int) -> _Trial:
        """Take up a trial the sampler did not draw now; it is told of it if it lies in the
        space.
        """
        series = self._series_of(slot.role)
        # A setting searched only since the trial ran had the file's value then: the space may grow
        # and keep history.
        written = {**series.file_values, **values}
        return self._add(
            slot,
            values,
            seed,
            series.study.enqueue(slot.index, written, seed) if series.study else None,
        )

    def _add(
        self, slot: _Slot, values: dict[str, Any], seed: int, handle: optuna.Trial | None
    ) -> _Trial:
        assert slot.trial_id not in self._trials, f"{slot.trial_id} stands in the history twice"
        trial = self._trials[slot.trial_id] = _Trial(
            trial_id=slot.trial_id,
            index=slot.index,
            role=slot.role,
            series=self._series_of(slot.role),
            values=dict(values),
            seed=seed,
            handle=handle,
        )
        return trial

    def _suggestion(self, trial: _Trial) -> Suggestion:
        settings = with_values(trial.series.settings, {SEED: trial.seed, **trial.values})
        return Suggestion(
            trial_id=trial.trial_id,
            index=trial.index,
            role=trial.role,
            values=dict(trial.values),
            settings=settings,
        )

    def _rebuild(self, history: Sequence[PastTrial]) -> list[_Trial]:
        """Live through the history again, and return the trials that were cut off."""
        waiting: list[tuple[_Trial, PastTrial]] = []
        for slot, past in sorted(((self._slot_of(past), past) for past in history), key=_in_order):
            seed = self._settings.train.seed if past.seed is None else past.seed
            trial = self._place(slot, past.values, seed)
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
        """Report the epochs of the past; they went on from each but the last, whatever would be
        decided now.
        """
        for epoch, value in sorted(past.epochs):
            trial.decision = CONTINUE
            self.report(trial.trial_id, epoch, value)

    def _slot_of(self, past: PastTrial) -> _Slot:
        search_id, _, number = past.trial_id.rpartition("-")
        assert search_id == self._search_id, f"{past.trial_id} is not of search {self._search_id}"
        return _Slot(trial_id=past.trial_id, index=int(number.removeprefix("b")), role=past.role)


def _in_order(pair: tuple[_Slot, PastTrial]) -> tuple[bool, bool, int]:
    slot, _ = pair
    return (slot.role == "trial", slot.role == "baseline_trial", slot.index)


def _best(trials: Sequence[_Trial]) -> _Trial | None:
    return max(trials, key=lambda trial: trial.best or 0.0, default=None)
