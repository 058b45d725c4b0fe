"""How a running command shows itself: a live table on a terminal, a line a trial elsewhere, JSON lines on demand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.runtime.jobs import Job
from attnfd_ray.runtime.listener import Listener

_ROWS_SHOWN = 12


@contextmanager
def progress(settings: ExperimentSettings, *, as_json: bool, searching: bool) -> Iterator[Listener]:
    """Yield the listener that suits where the output goes."""
    console = Console()
    if as_json:
        yield JsonLines(print)
    elif console.is_terminal:
        board = Board(settings, searching=searching)
        # rendered only when something happened: a table that redraws itself all the time is noise over ssh
        with Live(board, console=console, refresh_per_second=2, transient=False):
            yield board
    else:
        yield Lines(print, every_epoch=not searching)


def _searched(job: Job) -> str:
    values = (f"{path.rpartition('.')[2]}={_short(value)}" for path, value in job.searched.items())
    return " ".join(values) or {"baseline": "no distillation"}.get(job.role, "")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


class JsonLines:
    """Everything that happens, a JSON object a line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def _say(self, event: str, **values: Any) -> None:
        self._write(json.dumps({"event": event} | values))

    def stage(self, text: str) -> None:
        self._say("stage", text=text)

    def started(self, job: Job) -> None:
        self._say("started", trial_id=job.trial_id, role=job.role, searched=job.searched)

    def epoch(self, job: Job, metrics: dict[str, Any]) -> None:
        known = ("epoch", "epochs_total", "train_loss", "val_miou", "best_miou", "best_epoch", "lr", "images_per_s")
        self._say("epoch", trial_id=job.trial_id, **{name: metrics[name] for name in known})

    def finished(self, job: Job, state: str, metrics: dict[str, Any]) -> None:
        known = ("epoch", "epochs_total", "val_miou", "best_miou", "best_epoch", "failure_kind", "failure_text")
        values = {name: metrics[name] for name in known if name in metrics}
        self._say("finished", trial_id=job.trial_id, role=job.role, state=state, searched=job.searched, **values)


class Lines:
    """A line for each finished trial, and for each epoch of a single run."""

    def __init__(self, write: Callable[[str], None], *, every_epoch: bool) -> None:
        self._write, self._every_epoch = write, every_epoch

    def stage(self, text: str) -> None:
        self._write(text)

    def started(self, job: Job) -> None:
        """Say nothing: the end says it all."""

    def epoch(self, job: Job, metrics: dict[str, Any]) -> None:
        if self._every_epoch:
            self._write(
                f"{job.trial_id}  epoch {metrics['epoch']}/{metrics['epochs_total']}  "
                f"loss {metrics['train_loss']:.4f}  mIoU {_percent(metrics['val_miou'])}  "
                f"best {_percent(metrics['best_miou'])} at {metrics['best_epoch']}  "
                f"{metrics['images_per_s']:.1f} images/s"
            )

    def finished(self, job: Job, state: str, metrics: dict[str, Any]) -> None:
        self._write(f"{job.trial_id}  {state:<10} {_outcome(state, metrics)}  {job.role}  {_searched(job)}".rstrip())


def _outcome(state: str, metrics: dict[str, Any]) -> str:
    if "failure_kind" in metrics:
        return f"{metrics['failure_kind']}: {metrics['failure_text']}"
    place = f"{metrics['best_epoch']}/{metrics['epochs_total']}"
    stopped = f", stopped at {metrics['epoch']}" if state == "PRUNED" else ""
    return f"mIoU {_percent(metrics['best_miou'])} at {place}{stopped}"


@dataclass
class _Line:
    job: Job
    state: str = "RUNNING"
    metrics: dict[str, Any] = field(default_factory=dict)


class Board:
    """The live table: searched values, best so far, baseline, how many run, finished and failed, and how long yet."""

    def __init__(
        self, settings: ExperimentSettings, *, searching: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._searching, self._clock = settings, searching, clock
        self._begin = clock()
        self._stage = ""
        self._lines: dict[str, _Line] = {}

    def stage(self, text: str) -> None:
        self._stage = text

    def started(self, job: Job) -> None:
        self._stage = ""
        self._lines[job.trial_id] = _Line(job)

    def epoch(self, job: Job, metrics: dict[str, Any]) -> None:
        self._lines.setdefault(job.trial_id, _Line(job)).metrics = metrics

    def finished(self, job: Job, state: str, metrics: dict[str, Any]) -> None:
        line = self._lines.setdefault(job.trial_id, _Line(job))
        line.state, line.metrics = state, line.metrics | metrics

    def __rich__(self) -> Group:
        table = Table(expand=False, pad_edge=False, box=None, header_style="bold")
        for title, justify in (("trial", "left"), ("state", "left"), ("epoch", "right"), ("mIoU", "right")):
            table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("searched", overflow="fold")
        for line in self._shown():
            metrics = line.metrics
            epoch = f"{metrics.get('epoch', 0)}/{line.job.settings.train.epochs}"
            what = metrics.get("failure_kind") or _searched(line.job) or line.job.role
            table.add_row(line.job.trial_id, line.state, epoch, _percent(metrics.get("best_miou")), what)
        return Group(Text(self._headline(), style="bold"), table)

    def _shown(self) -> list[_Line]:
        """Return the running trials, then the best of the rest."""
        running = [line for line in self._lines.values() if line.state == "RUNNING"]
        rest = [line for line in self._lines.values() if line.state != "RUNNING"]
        rest.sort(key=lambda line: line.metrics.get("best_miou", -1.0), reverse=True)
        return (running + rest)[:_ROWS_SHOWN]

    def _headline(self) -> str:
        trials = [line for line in self._lines.values() if line.job.role != "teacher"]
        ended = [line for line in trials if line.state != "RUNNING"]
        failed = sum(line.state in ("FAILED", "INFEASIBLE") for line in ended)
        elapsed = self._clock() - self._begin
        parts = [self._settings.experiment]
        if self._searching:
            planned = self._settings.tune.trials + 1
            scores = [line.metrics["best_miou"] for line in trials if "best_miou" in line.metrics]
            baseline = next((line.metrics.get("best_miou") for line in trials if line.job.role == "baseline"), None)
            parts += [f"{len(ended)}/{planned} done", f"{len(trials) - len(ended)} running", f"{failed} failed"]
            parts += [f"best {_percent(max(scores, default=None))}", f"baseline {_percent(baseline)}"]
            if ended:
                parts.append(f"about {_duration(elapsed / len(ended) * (planned - len(ended)))} left")
        parts.append(_duration(elapsed))
        return "  ".join(parts) + (f"\n{self._stage}" if self._stage else "")
