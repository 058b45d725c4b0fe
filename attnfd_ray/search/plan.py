"""The plan of a search: which trial runs next, whether it continues, and the search's progress.

No torch, no ray. The number of a trial determines its role and the seed of its draw, so the plan
can be rebuilt from the history in the store alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.types import SEED
from attnfd_ray.search.baseline import LOSS_WEIGHT, as_trained
from attnfd_ray.search.distributions import Values
from attnfd_ray.search.live_trial import LiveTrial, count_trials
from attnfd_ray.search.objectives import objective_values
from attnfd_ray.search.optuna_study import OptunaStudy
from attnfd_ray.search.records import (
    CONTINUE,
    Counts,
    Decision,
    PastTrial,
    Suggestion,
    WarmStartSummary,
)
from attnfd_ray.search.slots import Slot, planned_slots, slot_of, start_order
from attnfd_ray.search.study_spec import StudySpec, baselines, searched
from attnfd_ray.terms import BASELINES, SearchRole, State


class SearchPlan:
    """The trials of a search, one suggestion at a time. Not thread-safe.

    `history` are the trials that this search has started before. `earlier` are trials of other
    searches, which the sampler learns from (summary in `warm_start`); they must be the same
    whenever the search resumes. Raises ConfigError where the sampler cannot search the space,
    cannot learn from `earlier`, or needs a package that is not installed.
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
        self._study = OptunaStudy(settings)
        self.warm_start = WarmStartSummary()
        if earlier:
            self.warm_start = self._study.add_trials(earlier)
        self._searched = searched(settings, self._study)
        had_baseline_trials = any(past.role == "baseline_trial" for past in history)
        self._baselines = baselines(
            settings, are_tuned=settings.tune.baseline_trials > 0 or had_baseline_trials
        )
        self._slots = planned_slots(settings, search_id)
        self._trials: dict[str, LiveTrial] = {}
        self._exhausted: set[SearchRole] = set()
        self._interrupted = self._rebuild(history)

    def next(self) -> Suggestion | None:
        """Return the next trial to run, interrupted ones first; None when all have been started."""
        if self._interrupted:
            return self._interrupted.pop(0).suggestion()
        while (slot := self._free_slot()) is not None:
            trial = self._start(slot)
            if trial is not None:
                return trial.suggestion()
            self._exhausted.add(slot.role)
        return None

    def report(self, trial_id: str, epoch: int, value: float) -> Decision:
        """Take the val_miou of an epoch (from 1) and decide whether the trial continues.

        A stopped trial stays stopped. An epoch reported before changes nothing, and neither does a
        value that is not finite. A worker that was lost may train epochs again: for any epoch
        before the last one the answer is CONTINUE, as it was then.
        """
        trial = self._trials[trial_id]
        if epoch < max(trial.epochs, default=0):
            return CONTINUE
        is_over = trial.state != "RUNNING" or trial.decision.stop
        if is_over or epoch in trial.epochs or not math.isfinite(value):
            return trial.decision
        trial.epochs[epoch] = value
        trial.best = max(trial.epochs.values())
        trial.decision = trial.report(epoch, value)
        if trial.decision.stop and self._is_never_stopped(trial):
            trial.decision = CONTINUE
        return trial.decision

    def finish(
        self,
        trial_id: str,
        state: State,
        value: float | None = None,
        measures: Mapping[str, float] | None = None,
    ) -> None:
        """End a trial; a second call changes nothing.

        The objective values of a complete trial are its best val_miou, or `value` if that is
        higher, and those of `measures` that the search optimises. A complete trial becomes FAILED
        where any of them is missing or not finite.
        """
        trial = self._trials[trial_id]
        assert state != "RUNNING", f"{trial_id}: RUNNING is not a final state"
        if trial.state != "RUNNING":
            return
        scores = [score for score in (trial.best, value) if score is not None]
        trial.best = max(filter(math.isfinite, scores), default=None)
        values = None
        if state == "COMPLETE":
            if all(map(math.isfinite, scores)):
                values = objective_values(trial.spec.metrics, trial.best, measures or {})
            if values is None:
                state = "FAILED"
        trial.state = state
        trial.tell(values)

    @property
    def is_done(self) -> bool:
        """Whether no trial runs and none is left to start, as far as `next` has found out."""
        states = [trial.state for trial in self._trials.values()]
        return "RUNNING" not in states and self._free_slot() is None

    def counts(self) -> Counts:
        """Return the progress of the search."""
        planned = {slot.trial_id for slot in self._slots}
        planned |= self._trials.keys()
        return count_trials(self._trials.values(), planned=len(planned))

    def _is_never_stopped(self, trial: LiveTrial) -> bool:
        """Return whether a trial is exempt from early stopping.

        The baseline is, and so are further seeds of a configuration. A mean over seeds counts only
        trials that had their full budget. If poor seeds were stopped, only lucky ones would be
        left. So no seed is stopped where an earlier one of the same configuration is complete or
        still running.
        """
        if trial.slot.role == "baseline":
            return True
        config = self._config(trial, trial.spec)
        return any(
            other.may_complete and self._config(other, trial.spec) == config
            for other in self._trials.values()
            if other.slot.index < trial.slot.index
            and (other.spec is trial.spec or other.slot.role == "baseline")
        )

    def _config(self, trial: LiveTrial, spec: StudySpec) -> dict[str, Any]:
        """Return the values of a trial in a study without its seed.

        In the study of the searched settings, the baseline is the file with a loss weight of 0.
        """
        values = trial.all_values
        if trial.slot.role == "baseline" and spec is self._searched:
            values = {**spec.file_values, LOSS_WEIGHT: 0.0}
        config = as_trained(values)
        config.pop(SEED, None)
        return config

    def _free_slot(self) -> Slot | None:
        """Return the first planned trial that is not started.

        A trial that was handed out, but lost before it was stored, counts as not started.
        """
        for slot in self._slots:
            if slot.trial_id not in self._trials and slot.role not in self._exhausted:
                return slot
        return None

    def _spec_of(self, role: SearchRole) -> StudySpec:
        if role in BASELINES:
            return self._baselines
        return self._searched

    def _start(self, slot: Slot) -> LiveTrial | None:
        """Start a planned trial, or return None where the sampler has no configuration left."""
        seed = self._settings.train.seed
        if slot.role == "baseline":
            return self._start_with(slot, {}, seed)
        if slot.role == "as_written":
            return self._start_with(slot, self._searched.file_values, seed)
        study = self._spec_of(slot.role).study
        if study is None:
            return None
        proposal = study.ask(slot.index)
        if proposal is None:
            return None
        seed = proposal.settings.train.seed
        return self._add(slot, proposal.values, seed, proposal.trial)

    def _start_with(self, slot: Slot, values: Values, seed: int) -> LiveTrial:
        """Start a trial with given values; the sampler gets it where they are inside the space."""
        spec = self._spec_of(slot.role)
        handle = None
        if spec.study is not None:
            # A setting that was not searched when the trial ran had the file's value then. So the
            # space may grow and the history stays.
            all_values = {**spec.file_values, **values}
            handle = spec.study.enqueue(slot.index, all_values, seed)
        return self._add(slot, values, seed, handle)

    def _add(self, slot: Slot, values: Values, seed: int, handle: optuna.Trial | None) -> LiveTrial:
        assert slot.trial_id not in self._trials, f"{slot.trial_id} is in the history twice"
        trial = LiveTrial(
            slot=slot,
            spec=self._spec_of(slot.role),
            values=dict(values),
            seed=seed,
            handle=handle,
        )
        self._trials[slot.trial_id] = trial
        return trial

    def _rebuild(self, history: Sequence[PastTrial]) -> list[LiveTrial]:
        """Replay the history in the order of the plan, and return the interrupted trials."""
        interrupted: list[tuple[LiveTrial, PastTrial]] = []
        in_order = sorted(history, key=lambda past: start_order(slot_of(past, self._search_id)))
        for past in in_order:
            slot = slot_of(past, self._search_id)
            seed = past.seed
            if seed is None:
                seed = self._settings.train.seed
            trial = self._start_with(slot, past.values, seed)
            if past.state == "RUNNING":
                interrupted.append((trial, past))
            else:
                self._replay(trial, past)
                _, last_value = max(past.epochs, default=(0, None))
                self.finish(slot.trial_id, past.state, last_value, past.measures)
        # Last, because the last epoch of such a trial is decided anew, with all that is known now.
        for trial, past in interrupted:
            self._replay(trial, past)
        return [trial for trial, _ in interrupted]

    def _replay(self, trial: LiveTrial, past: PastTrial) -> None:
        """Report the epochs of a past trial.

        Only the decision at the last one stands: the trial did continue after the others.
        """
        for epoch, value in sorted(past.epochs):
            trial.decision = CONTINUE
            self.report(trial.slot.trial_id, epoch, value)
