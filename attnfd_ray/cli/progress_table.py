"""The live table of a search or a run on a terminal. No torch, no ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from attnfd_ray.cli.gradients import GradientWarnings
from attnfd_ray.cli.progress_text import duration, measured_text, percent, searched_text
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.runtime.jobs.callback import Counts
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.terms import BASELINES

_MAX_ROWS = 12


@dataclass
class _Line:
    """A trial of this session, and its last metrics."""

    job: Job
    state: str = "RUNNING"
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.state in ("FAILED", "INFEASIBLE")

    @property
    def score(self) -> float | None:
        """The best mIoU; None if there is none, and for a failed trial."""
        if self.failed:
            return None
        return self.metrics.get("best_miou")

    @property
    def rank(self) -> float:
        """The score for sorting; trials without one come last."""
        if self.score is None:
            return -1.0
        return self.score


class ProgressTable:
    """The table: searched values and scores of the trials, and a headline with the progress.

    `write` prints a line that stays on the screen, such as a warning.
    """

    def __init__(
        self,
        settings: ExperimentSettings,
        *,
        searching: bool,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._searching = searching
        self._write = write
        self._clock = clock
        self._start_s = clock()
        self._warnings = GradientWarnings()
        self._earlier = Counts()  # of earlier sessions
        self._stage = ""
        self._lines: dict[str, _Line] = {}

    def on_stage(self, text: str) -> None:
        self._stage = text

    def on_search_start(self, counts: Counts) -> None:
        self._earlier = counts

    def on_trial_start(self, job: Job) -> None:
        self._stage = ""
        self._lines[job.trial_id] = _Line(job)

    def on_epoch_end(self, job: Job, metrics: dict[str, Any]) -> None:
        self._line_of(job).metrics = metrics
        if warning := self._warnings.of(job, metrics):
            self._write(warning)

    def on_trial_end(self, job: Job, state: str, metrics: dict[str, Any]) -> None:
        line = self._line_of(job)
        line.state = state
        line.metrics = line.metrics | metrics

    def _line_of(self, job: Job) -> _Line:
        return self._lines.setdefault(job.trial_id, _Line(job))

    def __rich__(self) -> Group:
        table = Table(expand=False, pad_edge=False, box=None, header_style="bold")
        table.add_column("trial", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("epoch", no_wrap=True, justify="right")
        table.add_column("mIoU", no_wrap=True, justify="right")
        table.add_column("searched", overflow="fold")
        for line in self._shown():
            metrics = line.metrics
            description = (
                metrics.get("failure_kind")
                or searched_text(line.job, self._settings.train.seed)
                or line.job.role
            )
            table.add_row(
                line.job.trial_id,
                line.state,
                f"{metrics.get('epoch', 0)}/{line.job.settings.train.epochs}",
                percent(metrics.get("best_miou")) + measured_text(metrics),
                Text(description),
            )
        return Group(Text(self._headline(), style="bold"), table)

    def _snapshot(self) -> list[_Line]:
        """Return all lines at once: the thread that draws reads while the driver adds lines."""
        return list(self._lines.values())

    def _shown(self) -> list[_Line]:
        """Return the running trials, then the best of the others."""
        lines = self._snapshot()
        running = [line for line in lines if line.state == "RUNNING"]
        others = [line for line in lines if line.state != "RUNNING"]
        others.sort(key=lambda line: line.rank, reverse=True)
        return (running + others)[:_MAX_ROWS]

    def _headline(self) -> str:
        elapsed_s = self._clock() - self._start_s
        parts = [self._settings.experiment]
        if self._searching:
            parts += self._search_parts(elapsed_s)
        headline = "  ".join([*parts, duration(elapsed_s)])
        if self._stage:
            headline += f"\n{self._stage}"
        return headline

    def _search_parts(self, elapsed_s: float) -> Iterator[str]:
        """Yield the parts of a search's headline."""
        earlier = self._earlier
        trials = [line for line in self._snapshot() if line.job.role != "teacher"]
        num_running = sum(line.state == "RUNNING" for line in trials)
        # UNFINISHED trials, which Ctrl-C has stopped, neither run nor have ended
        num_ended = sum(line.state not in ("RUNNING", "UNFINISHED") for line in trials)
        num_failed = earlier.failed + sum(line.failed for line in trials)
        best = [line.score for line in trials if line.job.role not in BASELINES]
        baseline = [line.score for line in trials if line.job.role in BASELINES]
        yield f"{earlier.finished + num_ended}/{earlier.planned} done"
        yield f"{num_running} running"
        yield f"{num_failed} failed"
        yield f"best {percent(_highest([*best, earlier.best_value]))}"
        yield f"baseline {percent(_highest([*baseline, earlier.baseline_value]))}"
        if num_ended:
            num_left = max(0, earlier.planned - earlier.finished - num_ended)
            yield f"about {duration(elapsed_s / num_ended * num_left)} left"


def _highest(scores: Iterable[float | None]) -> float | None:
    return max((score for score in scores if score is not None), default=None)
