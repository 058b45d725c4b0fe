"""The progress of a command as lines: text for a log, or JSON for a program. No torch, no ray."""

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

_EPOCH_KEYS = (
    "epoch",
    "epochs_total",
    "train_loss",
    "val_miou",
    "best_miou",
    "best_epoch",
    "lr",
    "images_per_s",
)
_END_KEYS = (
    "epoch",
    "epochs_total",
    "val_miou",
    "best_miou",
    "best_epoch",
    *CHANGED_BY,
    "failure_kind",
    "failure_text",
)
_TEACHER_LINES = 10  # of a teacher's training in a search


class JsonProgress:
    """Writes each event as a JSON object on a line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._warnings = GradientWarnings()

    def _write_event(self, event: str, **values: Any) -> None:
        self._write(json.dumps({"event": event} | values))

    def on_stage(self, text: str) -> None:
        self._write_event("stage", text=text)

    def on_search_start(self, counts: Counts) -> None:
        self._write_event("begins", planned=counts.planned, finished=counts.finished)

    def on_trial_start(self, job: Job) -> None:
        self._write_event("started", trial_id=job.trial_id, role=job.role, searched=job.searched)

    def on_epoch_end(self, job: Job, metrics: dict[str, Any]) -> None:
        values = {name: metrics[name] for name in _EPOCH_KEYS}
        self._write_event("epoch", trial_id=job.trial_id, **values)
        if warning := self._warnings.of(job, metrics):
            self._write_event(
                "warning", trial_id=job.trial_id, epoch=metrics["epoch"], text=warning
            )

    def on_trial_end(self, job: Job, state: str, metrics: dict[str, Any]) -> None:
        values = {name: metrics[name] for name in _END_KEYS if name in metrics}
        self._write_event(
            "finished",
            trial_id=job.trial_id,
            role=job.role,
            state=state,
            searched=job.searched,
            **values,
        )


class TextProgress:
    """Writes a line for each finished trial and each warning, and some for epochs.

    With `every_epoch`, for each epoch; without, for ten epochs of a teacher. `seed` is that of the
    file: another one is shown.
    """

    def __init__(
        self, write: Callable[[str], None], *, every_epoch: bool, seed: int | None = None
    ) -> None:
        self._write = write
        self._every_epoch = every_epoch
        self._seed = seed
        self._warnings = GradientWarnings()

    def on_stage(self, text: str) -> None:
        self._write(text)

    def on_search_start(self, counts: Counts) -> None:
        if counts.finished:
            self._write(f"resuming: {counts.finished} of {counts.planned} trials are finished")

    def on_trial_start(self, job: Job) -> None:
        """Write nothing: the line at the end has it all."""

    def on_epoch_end(self, job: Job, metrics: dict[str, Any]) -> None:
        if self._every_epoch or self._is_shown_teacher_epoch(job, metrics):
            self._write(
                f"{job.trial_id}  epoch {metrics['epoch']}/{metrics['epochs_total']}  "
                f"loss {metrics['train_loss']:.4f}  mIoU {percent(metrics['val_miou'])}  "
                f"best {percent(metrics['best_miou'])} at {metrics['best_epoch']}  "
                f"{metrics['images_per_s']:.1f} images/s"
            )
        if warning := self._warnings.of(job, metrics):
            self._write(warning)

    def _is_shown_teacher_epoch(self, job: Job, metrics: dict[str, Any]) -> bool:
        interval = max(1, metrics["epochs_total"] // _TEACHER_LINES)
        return job.role == "teacher" and metrics["epoch"] % interval == 0

    def on_trial_end(self, job: Job, state: str, metrics: dict[str, Any]) -> None:
        line = (
            f"{job.trial_id}  {state:<10} {_outcome(state, metrics)}  {job.role}  "
            f"{searched_text(job, self._seed)}"
        )
        self._write(line.rstrip())


def _outcome(state: str, metrics: dict[str, Any]) -> str:
    if "failure_kind" in metrics:
        return one_line(f"{metrics['failure_kind']}: {metrics['failure_text']}")
    if "best_epoch" not in metrics:
        return "no epoch was finished"
    text = (
        f"mIoU {percent(metrics['best_miou'])} at {metrics['best_epoch']}/{metrics['epochs_total']}"
    )
    if state == "PRUNED":
        text += f", stopped at {metrics['epoch']}"
    return text + measured_text(metrics)


def measured_text(metrics: dict[str, Any]) -> str:
    """Return the search metrics other than mIoU, if there are any: `, 0.263 M, 3.12 ms`."""
    params = metrics.get("student_params")
    latency_ms = metrics.get("latency_ms")
    text = ""
    if params is not None:
        text += f", {params / 1e6:.3f} M"
    if latency_ms is not None:
        text += f", {latency_ms:.2f} ms"
    return text


def searched_text(job: Job, seed: int | None = None) -> str:
    """Return the searched values by the last word of their paths: `lr=0.1 layers=aspp+decoder`.

    The seed of a trial is added if it is not `seed`, that of the file.
    """
    values = dict(job.searched)
    if seed is not None and job.role != "teacher" and job.settings.train.seed != seed:
        values[SEED] = job.settings.train.seed
    if not values and job.role == "baseline":
        return "no distillation"
    words = [f"{path.rpartition('.')[2]}={_short(value)}" for path, value in values.items()]
    return one_line(" ".join(words))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return str(value.get("name", value))
    if isinstance(value, list):
        return "+".join(map(_short, value))
    return str(value)


def percent(fraction: float | None) -> str:
    """Return a fraction in percent, `-` for None."""
    if fraction is None:
        return "-"
    return f"{100 * fraction:.2f} %"


def duration(seconds: float) -> str:
    """Return h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
