"""The planned trials of a search: their ids, roles and order. No optuna, no torch, no ray.

Trial 0 is the baseline (where the method has one). Then come the file as written, the trials that
tune the baseline (b1, b2, ...), and those that the sampler draws. Baseline trials have numbers of
their own, so that a search may be given more of them later.
"""

from __future__ import annotations

from dataclasses import dataclass

from attnfd_ray.config.overrides import baseline_of
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.ids import trial_id, trial_index
from attnfd_ray.search.records import PastTrial
from attnfd_ray.terms import SearchRole


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A planned trial; `index` is its number among the trials of its kind."""

    trial_id: str
    index: int
    role: SearchRole


def planned_slots(settings: ExperimentSettings, search_id: str) -> list[Slot]:
    """Return the trials of the whole search in the order in which they start."""
    first: list[SearchRole] = ["as_written"]
    has_baseline = baseline_of(settings) not in (None, settings)
    if has_baseline:
        first = ["baseline", "as_written"]
    drawn: list[SearchRole] = []
    if settings.search:
        drawn = ["trial"] * (settings.tune.trials - 1)
    numbered = [
        Slot(trial_id=trial_id(search_id, index), index=index, role=role)
        for index, role in enumerate(first + drawn)
    ]
    baseline_trials = [
        Slot(
            trial_id=trial_id(search_id, index, is_baseline_trial=True),
            index=index,
            role="baseline_trial",
        )
        for index in range(1, settings.tune.baseline_trials + 1)
    ]
    return [
        *numbered[: len(first)],
        *baseline_trials,
        *numbered[len(first) :],
    ]


def slot_of(past: PastTrial, search_id: str) -> Slot:
    """Return the slot of a trial in the history."""
    index = trial_index(past.trial_id, search_id)
    return Slot(trial_id=past.trial_id, index=index, role=past.role)


def start_order(slot: Slot) -> tuple[bool, bool, int]:
    """Return a sort key: baseline and file as written, baseline trials, drawn trials."""
    return (slot.role == "trial", slot.role == "baseline_trial", slot.index)
