"""What happens, a line each: for a log, or as JSON for a program. No torch, no ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attnfd_ray.cli.gradients import GradientWarnings
from attnfd_ray.config.metrics import CHANGED_BY
from attnfd_ray.config.types import SEED
from attnfd_ray.errors import one_line
from attnfd_ray.runtime.jobs.callback import Counts
from attnfd_ray.runtime.jobs.messages import Job


class JsonProgress:
    """Everything that happens, a JSON object a line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._warnings = GradientWarnings()

    def _say(self, event: str, **values: Any) -> None:
        self._write(json.dumps({"event": event} | values))

    def on_stage(self, text: str) -> None:
        self._say("stage", text=text)

    def on_search_start(self, counts: Counts) -> None:
        self._say("begins", planned=counts.planned, finished=counts.finished)

    def on_trial_start(self, job: Job) -> None:
        self._say("started", trial_id=job.trial_id, role=job.role, searched=job.searched)

    def on_epoch_end(self, job: Job, metrics: dict[str, Any]) -> None:
        known = (
            "epoch",
            "epochs_total",
            "train_loss",
            "val_miou",
            "best_miou",
            "best_epoch",
            "lr",
            "images_per_s",
        )
        self._say("epoch", trial_id=job.trial_id, **{name: metrics[name] for name in known})
        if warning := self._warnings.of(job, metrics):
            self._say("warning", trial_id=job.trial_id, epoch=metrics["epoch"], text=warning)

    def on_trial_end(self, job: Job, state: str, metrics: dict[str, Any]) -> None:
        known = ("epoch", "epochs_total", "val_miou", "best_miou", "best_epoch", *CHANGED_BY)
        known += ("failure_kind", "failure_text")
        values = {name: metrics[name] for name in known if name in metrics}
        self._say(
            "finished",
            trial_id=job.trial_id,
            role=job.role,
            state=state,
            searched=job.searched,
            **values,
        )


class TextProgress:
    """A line for each finished trial and each warning, for each epoch of a single run, and for ten
    of a teacher.
    """

    def __init__(
        self, write: Callable[[str], None], *, every_epoch: bool, seed: int | None = None
    ) -> None:
        self._write, self._every_epoch, self._seed = write, every_epoch, seed
        self._warnings = GradientWarnings()

    def on_stage(self, text: str) -> None:
        self._write(text)

    def on_search_start(self, counts: Counts) -> None:
        if counts.finished:
            self._write(f"goes on: {counts.finished} of {counts.planned} trials are done")

    def on_trial_start(self, job: Job) -> None:
        """Say nothing: the end says it all."""

    def on_epoch_end(self, job: Job, metrics: dict[str, Any]) -> None:
        tenth = max(1, metrics["epochs_total"] // 10)
        if self._every_epoch or (job.role == "teacher" and metrics["epoch"] % tenth == 0):
            self._write(
                f"{job.trial_id}  epoch {metrics['epoch']}/{metrics['epochs_total']}  "
                f"loss {metrics['train_loss']:.4f}  mIoU {percent(metrics['val_miou'])}  "
                f"best {percent(metrics['best_miou'])} at {metrics['best_epoch']}  "
                f"{metrics['images_per_s']:.1f} images/s"
            )
        if warning := self._warnings.of(job, metrics):
            self._write(warning)

    def on_trial_end(self, job: Job, state: str, metrics: dict[str, Any]) -> None:
        self._write(
            f"{job.trial_id}  {state:<10} {_outcome(state, metrics)}  {job.role}  "
            f"{searched(job, self._seed)}".rstrip()
        )


def _outcome(state: str, metrics: dict[str, Any]) -> str:
    if "failure_kind" in metrics:
        return one_line(f"{metrics['failure_kind']}: {metrics['failure_text']}")
    if "best_epoch" not in metrics:
        return "no epoch was finished"
    place = f"{metrics['best_epoch']}/{metrics['epochs_total']}"
    stopped = f", stopped at {metrics['epoch']}" if state == "PRUNED" else ""
    return f"mIoU {percent(metrics['best_miou'])} at {place}{stopped}{measured(metrics)}"


def measured(metrics: dict[str, Any]) -> str:
    """Return what was measured beside mIoU, where the search aims at it: `, 0.263 M, 3.12 ms`."""
    params, latency_ms = metrics.get("student_params"), metrics.get("latency_ms")
    size = "" if params is None else f", {params / 1e6:.3f} M"
    return size + ("" if latency_ms is None else f", {latency_ms:.2f} ms")


def searched(job: Job, seed: int | None = None) -> str:
    """Return the values a search chose, by the last word of their paths, and the seed where it is
    not the file's.
    """
    chosen = dict(job.searched)
    if seed is not None and job.role != "teacher" and job.settings.train.seed != seed:
        chosen |= {SEED: job.settings.train.seed}
    values = (f"{path.rpartition('.')[2]}={_short(value)}" for path, value in chosen.items())
    return one_line(" ".join(values)) or {"baseline": "no distillation"}.get(job.role, "")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return str(value.get("name", value))
    return "+".join(map(_short, value)) if isinstance(value, list) else str(value)


def percent(fraction: float | None) -> str:
    """Return a fraction as percent, `-` for none."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def duration(seconds: float) -> str:
    """Return h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
