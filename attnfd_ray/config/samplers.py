"""The traits of each sampler, read by the rules for settings and by `search`. No optuna.

A new sampler is a function in `search/samplers.py`, its line in `registry.py`, and a row here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SamplerTraits:
    """What a sampler can do and what it needs. The defaults hold for a user's own sampler."""

    # why it cannot search several metrics; None where it can
    single_metric_reason: str | None = None
    # tries every combination once, so it needs a finite space and never repeats a configuration
    is_exhaustive: bool = False
    # also from trials that it did not propose itself
    learns_from_other_trials: bool = True
    # in the trials that it proposed: with several trials at a time, a rebuilt search may then draw
    # other trials than an uninterrupted one
    keeps_state_in_trials: bool = False
    # must be installed; the extra `attnfd-ray[SAMPLER]` brings it
    package: str | None = None


SAMPLERS = {
    "tpe": SamplerTraits(),
    "gp": SamplerTraits(single_metric_reason="takes minutes for each draw with several metrics"),
    "cmaes": SamplerTraits(
        single_metric_reason="can follow only one metric",
        learns_from_other_trials=False,
        keeps_state_in_trials=True,
        package="cmaes",
    ),
    "nsga2": SamplerTraits(learns_from_other_trials=False, keeps_state_in_trials=True),
    "random": SamplerTraits(learns_from_other_trials=False),
    "grid": SamplerTraits(is_exhaustive=True, learns_from_other_trials=False),
}
MULTI_METRIC = [name for name, traits in SAMPLERS.items() if not traits.single_metric_reason]
LEARNING = [name for name, traits in SAMPLERS.items() if traits.learns_from_other_trials]


def traits_of(sampler: str) -> SamplerTraits:
    """Return the traits of the sampler that `tune.sampler` names."""
    return SAMPLERS.get(sampler) or SamplerTraits()


def any_of(names: list[str]) -> str:
    """Return names as a choice: `tpe, nsga2 or grid`.

    >>> any_of(["tpe", "nsga2", "grid"])
    'tpe, nsga2 or grid'
    """
    *others, last = names
    if not others:
        return last
    return f"{', '.join(others)} or {last}"
