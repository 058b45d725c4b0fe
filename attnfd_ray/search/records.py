"""The records that a search takes and returns. No optuna, no torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.terms import SearchRole, State


@dataclass(frozen=True, kw_only=True)
class PastTrial:
    """A trial of an earlier session, read from the store.

    `epochs` are pairs of epoch (from 1) and val_miou (a fraction). `seed` is the train.seed it ran
    with; None stands for the file's. `measures` are the other metrics: `student_params` and
    `latency_ms`.
    """

    trial_id: str
    role: SearchRole
    values: dict[str, Any]
    state: State
    seed: int | None = None
    epochs: Sequence[tuple[int, float]] = field(default_factory=tuple)
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A trial to run next.

    `values` are the searched values by dotted path; `settings` already contain them.
    """

    trial_id: str
    index: int
    role: SearchRole
    values: dict[str, Any]
    settings: ExperimentSettings


@dataclass(frozen=True, kw_only=True)
class WarmStartSummary:
    """How many earlier trials the sampler knows, and how many are outside this space."""

    taken: int = 0
    outside: int = 0

    def __str__(self) -> str:
        known = f"the sampler knows {self.taken} earlier trials"
        return f"{known}; {self.outside} outside this space are left out"


@dataclass(frozen=True)
class Decision:
    """Whether a trial ends now, and if so, why."""

    stop: bool
    reason: str | None = None


CONTINUE = Decision(stop=False)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The progress of a search.

    `best_value` and `baseline_value` are the best val_miou so far, without and of baselines.
    """

    planned: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    best_value: float | None = None
    baseline_value: float | None = None

    @property
    def finished(self) -> int:
        """The number of trials that have ended in any state."""
        return self.complete + self.pruned + self.failed
