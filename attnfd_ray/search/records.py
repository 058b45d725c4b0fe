"""What a search hands out and takes back: plain records, no optuna, no torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from attnfd_ray.config.schema import ExperimentSettings

Role = Literal["baseline", "as_written", "baseline_trial", "trial"]
BASELINES: tuple[Role, ...] = ("baseline", "baseline_trial")  # the student alone
State = Literal["RUNNING", "COMPLETE", "PRUNED", "FAILED", "INFEASIBLE"]


@dataclass(frozen=True, kw_only=True)
class PastTrial:
    """A trial of an earlier session, as the store tells it; epochs count from 1, val_miou is a
    fraction.

    `seed` is the train.seed it ran with; None: the file's. `measures` are what else a metric may
    ask for: `student_params`, `latency_ms`.
    """

    trial_id: str
    role: Role
    values: dict[str, Any]
    state: State
    seed: int | None = None
    epochs: Sequence[tuple[int, float]] = field(default_factory=tuple)
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What to run next; `values` are the searched ones by dotted path, and `settings` has them
    applied.
    """

    trial_id: str
    index: int
    role: Role
    values: dict[str, Any]
    settings: ExperimentSettings


@dataclass(frozen=True, kw_only=True)
class WarmStartSummary:
    """How many trials of an earlier search the sampler knows, and how many were left out as outside
    this space.
    """

    taken: int = 0
    outside: int = 0

    def __str__(self) -> str:
        return f"the sampler knows {self.taken} earlier trials; {self.outside} outside this space are left out"


@dataclass(frozen=True)
class Decision:
    """Whether a trial ends here, and if so, why."""

    stop: bool
    reason: str | None = None


CONTINUE = Decision(stop=False)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Where a search stands; scores are best val_miou so far, and those of baselines are not among
    `best_value`.
    """

    planned: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    best_value: float | None = None
    baseline_value: float | None = None

    @property
    def finished(self) -> int:
        """Return how many trials have ended, well or not."""
        return self.complete + self.pruned + self.failed
