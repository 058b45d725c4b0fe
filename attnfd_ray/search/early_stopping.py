"""Stops trials before their last epoch: each function makes one of Optuna's pruners.

No torch, no ray. Our own pruners give a reason (`Explains`). Trials are identified by the number
that the plan gave them, `user_attrs["index"]`: Optuna's own numbers shift when a search is rebuilt.
"""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from optuna import Study
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from attnfd_ray.config.schema import TuneSettings

INDEX = "index"  # in a trial's user_attrs: its number in the plan
NUM_COMPLETE = 5  # complete trials that a median needs


@runtime_checkable
class Explains(Protocol):
    """A pruner that gives the reason why it stops a trial."""

    def why(self, study: Study, trial: FrozenTrial) -> str:
        """Return in one line why `prune` has just stopped `trial`."""


def asha(tune: TuneSettings, epochs: int) -> BasePruner:
    """Asynchronous successive halving: rung k is at epoch grace_epochs * reduction_factor ** k."""
    return Halving(_rungs(tune, epochs), tune.reduction_factor)


def hyperband(tune: TuneSettings, epochs: int) -> BasePruner:
    """Several brackets of asha side by side: bracket b has no rung before rung b.

    Trials of later brackets therefore run longer before they may be stopped. Earlier brackets get
    more trials, in Hyperband's proportion (Li et al. 2018, algorithm 1). Optuna's HyperbandPruner
    is not used, for two reasons: it assigns brackets by Optuna's own trial numbers, and with it
    `Study.get_trials` shows the sampler only the trials of one bracket.
    """
    rungs = _rungs(tune, epochs)
    num_brackets = max(1, len(rungs))
    return Halving(rungs, tune.reduction_factor, num_brackets)


def median(tune: TuneSettings, epochs: int) -> BasePruner:
    """Stops a trial whose best value so far is below the median of complete trials at that epoch.

    Stops nothing before grace_epochs, nor before 5 trials are complete.
    """
    # n_min_trials: trials of an earlier search are complete too, but have no value at any epoch
    return Median(NUM_COMPLETE, n_warmup_steps=tune.grace_epochs, n_min_trials=NUM_COMPLETE)


def none(tune: TuneSettings, epochs: int) -> BasePruner:
    """Stops nothing: every trial runs to its last epoch."""
    return NopPruner()


class Halving(BasePruner):
    """At each rung, the best floor(n / reduction_factor) trials of a bracket continue.

    n counts the trials that have reached this rung so far, including the current one. At least one
    continues, so the first trial to reach a rung always does. `rungs` are epochs, ascending. A
    pruner remembers the values it has seen, so each study needs its own.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: int, num_brackets: int = 1) -> None:
        self._rungs = rungs
        self._factor = reduction_factor
        self._brackets: list[int] = []  # each bracket as often as its share of the trials
        for bracket in range(num_brackets):
            num_rungs = num_brackets - bracket
            share = math.ceil(num_brackets * reduction_factor ** (num_rungs - 1) / num_rungs)
            self._brackets += [bracket] * share
        # (bracket, epoch) -> value by number of the trial
        self._reached: dict[tuple[int, int], dict[int, float]] = {}

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether the trial is at a rung and is not among the best there."""
        epoch = trial.last_step
        bracket = self._bracket(trial)
        if epoch is None or epoch not in self._rungs[bracket:]:
            return False
        value = trial.intermediate_values[epoch]
        values = self._reached.setdefault((bracket, epoch), {})
        values[trial.user_attrs[INDEX]] = value
        return value < self._cut_off(bracket, epoch)

    def why(self, study: Study, trial: FrozenTrial) -> str:
        """Return value, epoch, rank, rung, bracket (where there are several) and cut-off."""
        epoch = trial.last_step
        bracket = self._bracket(trial)
        assert epoch is not None
        num_trials = len(self._reached[bracket, epoch])
        num_continuing = self._num_continuing(bracket, epoch)
        best = "the best"
        if num_continuing > 1:
            best = f"among the best {num_continuing}"
        rung = f"rung {self._rungs.index(epoch)}"
        if len(set(self._brackets)) > 1:
            rung += f" of bracket {bracket}"
        cut_off = f"(cut-off {self._cut_off(bracket, epoch):.4f})"
        return f"{_value(trial)} is not {best} of {num_trials} at {rung} {cut_off}"

    def _cut_off(self, bracket: int, epoch: int) -> float:
        """Return the lowest value at a rung with which a trial continues."""
        values = self._reached[bracket, epoch].values()
        best_first = sorted(values, reverse=True)
        return best_first[self._num_continuing(bracket, epoch) - 1]

    def _num_continuing(self, bracket: int, epoch: int) -> int:
        num_trials = len(self._reached[bracket, epoch])
        return max(1, num_trials // self._factor)

    def _bracket(self, trial: FrozenTrial) -> int:
        """Return the trial's bracket: a hash of its number, so all processes agree.

        Consecutive numbers get different brackets, so that all of them fill.
        """
        number = str(trial.user_attrs[INDEX])
        digest = zlib.crc32(number.encode())
        return self._brackets[digest % len(self._brackets)]


class Median(MedianPruner):
    """Optuna's median pruner, with a reason."""

    def why(self, study: Study, trial: FrozenTrial) -> str:
        """Return the best value, the epoch, the median and the number of trials it is taken of."""
        epoch = trial.last_step
        best = max(trial.intermediate_values.values())
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        values = [
            other.intermediate_values[epoch]
            for other in complete
            if epoch in other.intermediate_values
        ]
        return (
            f"the best up to epoch {epoch}, {best:.4f}, is below the median of {len(values)} "
            f"complete trials there (cut-off {statistics.median(values):.4f})"
        )


def why(study: Study, trial: FrozenTrial) -> str:
    """Return in one line why `trial` was stopped: the pruner's reason if it gives one."""
    pruner = study.pruner
    if isinstance(pruner, Explains):
        return pruner.why(study, trial)
    return f"{_value(trial)} does not promise enough"


def _value(trial: FrozenTrial) -> str:
    assert trial.last_step is not None
    return f"{trial.intermediate_values[trial.last_step]:.4f} at epoch {trial.last_step}"


def _rungs(tune: TuneSettings, epochs: int) -> list[int]:
    rungs: list[int] = []
    epoch = tune.grace_epochs
    while epoch <= epochs:
        rungs.append(epoch)
        epoch *= tune.reduction_factor
    return rungs
