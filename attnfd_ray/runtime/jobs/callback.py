"""The callback through which a command reports its progress to the command line, or to a test."""

from __future__ import annotations

from typing import Any, Protocol

from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.search.records import Counts

__all__ = ["Callback", "Counts"]


class Callback(Protocol):
    """Called in the driver, from one thread at a time; `on_stage` from any thread.

    `metrics` are those of `train.records.EpochRecord`.
    """

    def on_stage(self, text: str) -> None:
        """A stage other than a trial starts, or there is a message for the user."""

    def on_search_start(self, counts: Counts) -> None:
        """A search starts or is resumed; `counts` has the trials of earlier sessions."""

    def on_trial_start(self, job: Job) -> None:
        """A trial was submitted."""

    def on_epoch_end(self, job: Job, metrics: dict[str, Any]) -> None:
        """An epoch of a trial has ended."""

    def on_trial_end(self, job: Job, state: str, metrics: dict[str, Any]) -> None:
        """A trial has ended, or is UNFINISHED: it is resumed by the next call of the command.

        `metrics` are its last ones, or its `failure_kind` and `failure_text`.
        """
