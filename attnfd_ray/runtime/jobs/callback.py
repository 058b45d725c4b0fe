"""Who hears how a command goes on; the command line draws a table, a test keeps a list."""

from __future__ import annotations

from typing import Any, Protocol

from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.search.records import Counts

__all__ = ["Callback", "Counts"]


class Callback(Protocol):
    """Called in the driver, from one thread at a time; `stage` from any.

    `metrics` are those of `train.records.EpochRecord`.
    """

    def on_stage(self, text: str) -> None:
        """Something begins that is no trial."""

    def on_search_start(self, counts: Counts) -> None:
        """A search begins, or goes on after earlier sessions."""

    def on_trial_start(self, job: Job) -> None:
        """A trial was handed out."""

    def on_epoch_end(self, job: Job, metrics: dict[str, Any]) -> None:
        """An epoch of a trial is over."""

    def on_trial_end(self, job: Job, state: str, metrics: dict[str, Any]) -> None:
        """A trial is over, or UNFINISHED for today; `metrics` are its last, or `failure_kind` and
        `failure_text`.
        """
