"""Messages between driver, broker and worker groups: plain data that can be pickled. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.store import layout
from attnfd_ray.terms import FailureKind, Role


@dataclass(frozen=True, kw_only=True)
class Job:
    """Train one network, or score a teacher before a student is trained with it.

    `settings_json` are complete, validated settings. `searched` are the values that a search chose,
    by dotted path. `teacher_file` has the weights of the teacher, or those to score. `step_s` is
    the median optimiser step of an attempt that hung, in seconds.
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

    @cached_property
    def settings(self) -> ExperimentSettings:
        """The settings, parsed once per process."""
        return ExperimentSettings.model_validate_json(self.settings_json)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the parsed settings out of a pickle: it would carry them twice."""
        return {name: value for name, value in vars(self).items() if name != "settings"}

    @property
    def directory(self) -> Path:
        """The directory of the run's checkpoints and weights."""
        return layout.run_directory(self.settings.store, self.trial_id)


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a worker group reports of a job: an epoch's metrics, or that it is done or has failed.

    The metrics are those of `train.records.EpochRecord`; a job that is done has its last ones, and
    the metrics measured once per trial.
    """

    kind: Literal["epoch", "done", "failed"]
    metrics: dict[str, Any] = field(default_factory=dict)
    failure_kind: str | None = None
    failure_text: str | None = None

    @classmethod
    def failed(cls, kind: str, text: str) -> Event:
        """Return the event of a failure; `kind` is a key of `failure_policy.POLICIES`."""
        return cls(kind="failed", failure_kind=kind, failure_text=text)

    @classmethod
    def interrupted(cls) -> Event:
        """Return the event of a job that the user stopped, and that is resumed later."""
        return cls.failed(FailureKind.INTERRUPTED, "stopped; run the same command again to resume")

    @property
    def failed_with(self) -> tuple[str, str]:
        """The (kind, text) of a failure."""
        assert self.failure_kind is not None, "only a failed event has a kind"
        return self.failure_kind, self.failure_text or ""
