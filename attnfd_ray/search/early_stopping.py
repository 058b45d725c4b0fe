"""What stops a trial before its last epoch: each function makes one of Optuna's pruners. No torch, no ray."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial

from attnfd_ray.config.schema import TuneSettings

_RUNG = "completed_rung_"  # + k: Optuna's record, in a trial's system_attrs, of its value at rung k


def asha(tune: TuneSettings, epochs: int) -> BasePruner:
    """Asynchronous successive halving: rung k is at epoch grace_epochs * reduction_factor ** k.

    At a rung a trial goes on if its value is among the best floor(n / reduction_factor), at least one, of the n trials
    that have come to this rung so far, itself included. So the first to come goes on whatever it is worth.
    """
    return SuccessiveHalvingPruner(
        min_resource=tune.grace_epochs, reduction_factor=tune.reduction_factor, bootstrap_count=0
    )


def none(tune: TuneSettings, epochs: int) -> BasePruner:
    """Every trial runs to its last epoch."""
    return NopPruner()


def why(trial: FrozenTrial, trials: Sequence[FrozenTrial], *, epoch: int, value: float, reduction_factor: int) -> str:
    """Return in one line why `trial`, one of `trials`, was stopped at `epoch` with `value`."""
    rungs = [int(key.removeprefix(_RUNG)) for key in trial.system_attrs if key.startswith(_RUNG)]
    if not rungs:  # the pruner is not asha
        return f"{value:.4f} at epoch {epoch} does not promise enough"
    key = f"{_RUNG}{max(rungs)}"
    reached = sorted((other.system_attrs[key] for other in trials if key in other.system_attrs), reverse=True)
    kept = max(1, len(reached) // reduction_factor)
    best = "the best" if kept == 1 else f"among the best {kept}"
    return (
        f"{value:.4f} at epoch {epoch} is not {best} of {len(reached)} at rung {max(rungs)} "
        f"(cut-off {reached[kept - 1]:.4f})"
    )
