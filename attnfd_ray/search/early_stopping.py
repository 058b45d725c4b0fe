"""What stops a trial before its last epoch: each function makes one of Optuna's pruners. No torch,
no ray.

A pruner of ours says why (`Explains`). Trials are told apart by the number the plan gave them,
`user_attrs["index"]`, since Optuna's own numbers shift when a search is rebuilt.
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
NUM_COMPLETE = 5  # trials that a median is worth taking of


@runtime_checkable
class Explains(Protocol):
    """A pruner that can say why it stops a trial."""

    def why(self, study: Study, trial: FrozenTrial) -> str:
        """Return in one line why `trial`, which `prune` has just stopped, was stopped."""


def asha(tune: TuneSettings, epochs: int) -> BasePruner:
    """Asynchronous successive halving: rung k is at epoch grace_epochs * reduction_factor ** k."""
    return Halving(_rungs(tune, epochs), tune.reduction_factor)


def hyperband(tune: TuneSettings, epochs: int) -> BasePruner:
    """Several asha side by side: bracket b has no rung before rung b, so its trials have longer to
    show their worth.

    Early brackets get more trials, in Hyperband's proportion (Li et al. 2018, algorithm 1).
    Optuna's HyperbandPruner assigns brackets by its own numbers of trials, and `Study.get_trials`
    then shows samplers one bracket alone.
    """
    rungs = _rungs(tune, epochs)
    return Halving(rungs, tune.reduction_factor, num_brackets=max(1, len(rungs)))


def median(tune: TuneSettings, epochs: int) -> BasePruner:
    """From grace_epochs on, a trial goes on while its best so far is no less than the median of
    complete trials then.

    Nothing is stopped before 5 trials are complete.
    """
    # Those of an earlier search are complete too, but tell of no epoch: hence the second number.
    return Median(NUM_COMPLETE, n_warmup_steps=tune.grace_epochs, n_min_trials=NUM_COMPLETE)


def none(tune: TuneSettings, epochs: int) -> BasePruner:
    """Every trial runs to its last epoch."""
    return NopPruner()


class Halving(BasePruner):
    """At a rung, a trial goes on if it is among the best floor(n / reduction_factor), at least one,
    of its bracket.

    n counts the trials that have come to this rung so far, itself included. So the first to come
    goes on whatever it is worth. `rungs` are epochs, ascending. It remembers what it was shown: one
    for each study.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: int, num_brackets: int = 1) -> None:
        self._rungs, self._factor = rungs, reduction_factor
        left = range(num_brackets, 0, -1)  # rungs of bracket 0, 1, ...
        shares = [math.ceil(num_brackets * reduction_factor ** (num - 1) / num) for num in left]
        self._brackets = [bracket for bracket, share in enumerate(shares) for _ in range(share)]
        self._reached: dict[
            tuple[int, int], dict[int, float]
        ] = {}  # (bracket, epoch) -> value by number of the trial

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether the last reported epoch is a rung at which the trial is not among the
        best.
        """
        epoch, bracket = trial.last_step, self._bracket(trial)
        if epoch is None or epoch not in self._rungs[bracket:]:
            return False
        value = trial.intermediate_values[epoch]
        self._reached.setdefault((bracket, epoch), {})[trial.user_attrs[INDEX]] = value
        return value < self._cut_off(bracket, epoch)

    def why(self, study: Study, trial: FrozenTrial) -> str:
        """Return value, epoch, rank, rung, bracket (where there are several) and cut-off."""
        epoch, bracket = trial.last_step, self._bracket(trial)
        assert epoch is not None
        num, kept = len(self._reached[bracket, epoch]), self._num_kept(bracket, epoch)
        best = "the best" if kept == 1 else f"among the best {kept}"
        rung = f"rung {self._rungs.index(epoch)}"
        if len(set(self._brackets)) > 1:
            rung += f" of bracket {bracket}"
        return f"{_value(trial)} is not {best} of {num} at {rung} (cut-off {self._cut_off(bracket, epoch):.4f})"

    def _cut_off(self, bracket: int, epoch: int) -> float:
        return sorted(self._reached[bracket, epoch].values(), reverse=True)[
            self._num_kept(bracket, epoch) - 1
        ]

    def _num_kept(self, bracket: int, epoch: int) -> int:
        return max(1, len(self._reached[bracket, epoch]) // self._factor)

    def _bracket(self, trial: FrozenTrial) -> int:
        """Return the same for the same number in every process; neighbours differ, so that all
        brackets fill.
        """
        return self._brackets[
            zlib.crc32(str(trial.user_attrs[INDEX]).encode()) % len(self._brackets)
        ]


class Median(MedianPruner):
    """Optuna's, which says why."""

    def why(self, study: Study, trial: FrozenTrial) -> str:
        """Return best value, epoch, the median and of how many trials it is."""
        epoch, best = trial.last_step, max(trial.intermediate_values.values())
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        then = [
            other.intermediate_values[epoch]
            for other in complete
            if epoch in other.intermediate_values
        ]
        return (
            f"the best up to epoch {epoch}, {best:.4f}, is below the median of {len(then)} "
            "complete trials there "
            f"(cut-off {statistics.median(then):.4f})"
        )


def why(study: Study, trial: FrozenTrial) -> str:
    """Return in one line why `trial` was stopped, by what its pruner says if it can."""
    pruner = study.pruner
    return (
        pruner.why(study, trial)
        if isinstance(pruner, Explains)
        else f"{_value(trial)} does not promise enough"
    )


def _value(trial: FrozenTrial) -> str:
    assert trial.last_step is not None
    return f"{trial.intermediate_values[trial.last_step]:.4f} at epoch {trial.last_step}"


def _rungs(tune: TuneSettings, epochs: int) -> list[int]:
    rungs, epoch = [], tune.grace_epochs
    while epoch <= epochs:
        rungs.append(epoch)
        epoch *= tune.reduction_factor
    return rungs
