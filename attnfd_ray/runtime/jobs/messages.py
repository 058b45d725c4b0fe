"""What a worker group is asked to do, and what it says while at it: plain data, so that it travels
anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.store.rows import Role

# the kind of failure that is none: the user stopped a job, and it goes on another time
INTERRUPTED = "INTERRUPTED"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Train one network, or score a teacher before anything is learnt from it.

    `settings_json` are whole, validated settings; `teacher_file` the weights to learn from or to
    score; `searched` the values a search chose, by dotted path; `step_s` the median optimiser step
    of an attempt that hung.
    """

    kind: Literal["train", "score_teacher"]
    trial_id: str
    role: Role
    settings_json: str
    search_id: str | None = None
    searched: dict[str, Any] = field(default_factory=dict)
    teacher_file: str | None = None
    teacher_hash: str | None = None
    data_hash: str | None = None
    git_commit: str | None = None
    step_s: float | None = None

    @property
    def settings(self) -> ExperimentSettings:
        """The settings, as records."""
        return ExperimentSettings.model_validate_json(self.settings_json)

    @property
    def directory(self) -> Path:
        """Where the run keeps its checkpoints and weights."""
        return Path(self.settings.store) / "runs" / self.trial_id


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something a group says of a job: an epoch's metrics, or that it is done or has failed."""

    kind: Literal["epoch", "done", "failed"]
    metrics: dict[str, Any] = field(default_factory=dict)
    failure_kind: str | None = None
    failure_text: str | None = None

    @classmethod
    def interrupted(cls) -> Event:
        """Return that a job was stopped before its end, which is still to come."""
        return cls(
            kind="failed",
            failure_kind=INTERRUPTED,
            failure_text="stopped; the same command goes on with it",
        )

    @property
    def failed_with(self) -> tuple[str, str]:
        """The kind and the text of a failure."""
        assert self.failure_kind is not None, "only what failed has a kind"
        return self.failure_kind, self.failure_text or ""
