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
from attnfd_ray.cli.progress_text import duration, measured, percent, searched
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.runtime.jobs.callback import Counts
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.store.rows import BASELINES

_ROWS_SHOWN = 12


@dataclass
class _Line:
    job: Job
    state: str = "RUNNING"
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.state in ("FAILED", "INFEASIBLE")

    @property
    def score(self) -> float | None:
        """The best mIoU; what failed has none that counts."""
        return None if self.failed else self.metrics.get("best_miou")


class ProgressTable:
    """The live table: searched values, best so far, baseline, how many run, finished and failed,
    and how long yet.

    `write` prints a line that stays, such as a warning.
    """

    def __init__(
        self,
        settings: ExperimentSettings,
        *,
        searching: bool,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._searching, self._write, self._clock = (
            settings,
            searching,
            write,
            clock,
        )
        self._warnings = GradientWarnings()
        self._begin = clock()
        self._earlier = Counts()
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
        self._lines.setdefault(job.trial_id, _Line(job)).metrics = metrics
        if warning := self._warnings.of(job, metrics):
            self._write(warning)

    def on_trial_end(self, job: Job, state: str, metrics: dict[str, Any]) -> None:
        line = self._lines.setdefault(job.trial_id, _Line(job))
        line.state, line.metrics = state, line.metrics | metrics

    def __rich__(self) -> Group:
        table = Table(expand=False, pad_edge=False, box=None, header_style="bold")
        for title, justify in (
            ("trial", "left"),
            ("state", "left"),
            ("epoch", "right"),
            ("mIoU", "right"),
        ):
            table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("searched", overflow="fold")
        for line in self._shown():
            metrics = line.metrics
            epoch = f"{metrics.get('epoch', 0)}/{line.job.settings.train.epochs}"
            what = (
                metrics.get("failure_kind")
                or searched(line.job, self._settings.train.seed)
                or line.job.role
            )
            score = percent(metrics.get("best_miou")) + measured(metrics)
            table.add_row(line.job.trial_id, line.state, epoch, score, Text(what))
        return Group(Text(self._headline(), style="bold"), table)

    def _shown(self) -> list[_Line]:
        """Return the running trials, then the best of the rest."""
        lines = list(
            self._lines.values()
        )  # at once: the drawing thread reads while the driver adds
        running = [line for line in lines if line.state == "RUNNING"]
        rest = [line for line in lines if line.state != "RUNNING"]
        rest.sort(key=lambda line: -1.0 if line.score is None else line.score, reverse=True)
        return (running + rest)[:_ROWS_SHOWN]

    def _headline(self) -> str:
        elapsed = self._clock() - self._begin
        parts = [
            self._settings.experiment,
            *(self._search(elapsed) if self._searching else ()),
            duration(elapsed),
        ]
        return "  ".join(parts) + (f"\n{self._stage}" if self._stage else "")

    def _search(self, elapsed: float) -> Iterator[str]:
        """Yield where the search stands."""
        trials = [line for line in list(self._lines.values()) if line.job.role != "teacher"]
        # what Ctrl-C stopped neither runs nor is done
        num_running = sum(line.state == "RUNNING" for line in trials)
        num_ended = sum(line.state not in ("RUNNING", "UNFINISHED") for line in trials)
        earlier, planned = self._earlier, self._earlier.planned
        yield f"{earlier.finished + num_ended}/{planned} done"
        yield f"{num_running} running"
        yield f"{earlier.failed + sum(line.failed for line in trials)} failed"
        scores = [line.score for line in trials if line.job.role not in BASELINES] + [
            earlier.best_value
        ]
        yield f"best {percent(_highest(scores))}"
        baselines = [line.score for line in trials if line.job.role in BASELINES] + [
            earlier.baseline_value
        ]
        yield f"baseline {percent(_highest(baselines))}"
        if num_ended:
            yield f"about {duration(elapsed / num_ended * max(0, planned - earlier.finished - num_ended))} left"


def _highest(scores: Iterable[float | None]) -> float | None:
    return max((score for score in scores if score is not None), default=None)
