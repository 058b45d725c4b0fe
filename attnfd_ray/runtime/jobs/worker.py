"""One process of a worker group: runs jobs one after another.

`WorkerCache` keeps what the next job needs too. Model, optimiser and device memory are freed after
each job, and every job seeds its own random generators. Knows torch and the store, no Ray:
`worker_group` provides the jobs and sends the events.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import time
import traceback
from collections.abc import Callable

import torch

from attnfd_ray.config.metrics import LATENCY
from attnfd_ray.data.loading.loader import val_batches
from attnfd_ray.distill.method import method_class
from attnfd_ray.errors import Diverged, NoMetric
from attnfd_ray.runtime.jobs.failure_policy import POLICIES
from attnfd_ray.runtime.jobs.failures import describe, is_lost_worker, trace_file, write_trace
from attnfd_ray.runtime.jobs.messages import Event, Job
from attnfd_ray.runtime.jobs.trial_writer import TrialWriter, final_objectives, stored_end
from attnfd_ray.runtime.jobs.watchdog import Watchdog
from attnfd_ray.runtime.jobs.worker_cache import WorkerCache
from attnfd_ray.store.store import Store
from attnfd_ray.terms import FailureKind
from attnfd_ray.train import latency
from attnfd_ray.train.distributed import broadcast_object, rank, world_size
from attnfd_ray.train.evaluate import evaluate, protocol
from attnfd_ray.train.records import EpochRecord, Outcome
from attnfd_ray.train.trainer import Trainer

TEACHER_CHECK_IMAGES = 64  # enough to find a wrong file, few enough to be quick

Push = Callable[[Job, Event], str | None]
ReportHang = Callable[[Job, str, float], None]


class GroupMustRestart(Exception):
    """This process failed alone; the others wait for it in a collective and must be ended."""


class Worker:
    """Runs jobs.

    `push` sends an event and returns why the job must stop, or None to continue. Only rank 0 pushes
    epochs. `report_hang` is called with a text and the median step in seconds, just before this
    process is ended for a step that hangs; without it, no step is watched.
    """

    def __init__(
        self, device: torch.device, push: Push, report_hang: ReportHang | None = None
    ) -> None:
        self.device = device
        self._push = push
        self._report_hang = report_hang
        self._cache = WorkerCache(device)
        # imported modules stay; without this, a collection after each job takes a third of a second
        gc.freeze()

    def do(self, job: Job) -> None:
        """Run a job to its end; a failure is pushed as an event, not raised.

        Raises GroupMustRestart if the other processes of the group cannot know of the failure, or
        if the driver is gone.
        """
        try:
            if job.kind == "train":
                self._train(job)
            else:
                self._score_teacher(job)
        except GroupMustRestart:
            raise
        except Exception as error:  # a user's code may raise anything
            if is_lost_worker(error):
                raise GroupMustRestart(f"another worker of the group died: {error}") from error
            self._fail(job, error)
        finally:
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def close(self) -> None:
        """End the reader processes and free what is kept on this node."""
        self._cache.close()

    def _fail(self, job: Job, error: Exception) -> None:
        """Push the failure of a job. Raises GroupMustRestart if this process has failed alone."""
        kind, text = describe(error)
        # all workers compute the same loss and scores, so they raise these together
        alone = not isinstance(error, Diverged | NoMetric)
        if alone or rank() == 0:
            is_traced = POLICIES[kind].traced
            if is_traced and write_trace(job, kind, "".join(traceback.format_exception(error))):
                text += f"; traceback: {trace_file(job)}"
            self._push(job, Event.failed(kind, text))
        if alone and world_size() > 1:
            raise GroupMustRestart(text) from error

    def _score_teacher(self, job: Job) -> None:
        """Load a teacher strictly and score it on the first images of the val split."""
        assert job.teacher_file is not None
        settings = job.settings
        limit = min(TEACHER_CHECK_IMAGES, settings.data.val_limit or TEACHER_CHECK_IMAGES)
        data = settings.data.model_copy(update={"val_limit": limit})
        val_set = self._cache.dataset(data, data.val_split)
        teacher = self._cache.teacher(settings, job.teacher_file, val_set.num_classes)
        batches = val_batches(
            val_set,
            data,
            readers=self._cache.readers(data, val_set),
            rank=rank(),
            world_size=world_size(),
            device=self.device,
        )
        scored = evaluate(
            teacher.network,
            batches,
            num_classes=val_set.num_classes,
            device=self.device,
            data=data,
            train=settings.train,
        )
        if rank() == 0:
            metrics = {"val_miou": scored.miou, "protocol": protocol(data)}
            self._push(job, Event(kind="done", metrics=metrics))

    def _train(self, job: Job) -> None:
        """Train a network and write its rows; the rank 0 process does the writing."""
        store: Store | None = None
        end: Event | None = None
        if rank() == 0:
            # the driver has made the store: a store that is missing here is not shared
            store = Store.open(job.settings.store, create=False)
            if job.search_id:
                end = stored_end(job, store)
        end = broadcast_object(end)
        if end is not None:
            if rank() == 0:
                self._push(job, end)
            return
        writer: TrialWriter | None = None
        if store is not None:
            writer = TrialWriter(job, store, self.device)
        watchdog = self._watchdog(job)
        trainer = self._trainer(job, watchdog)
        report = _Reporter(job, self._push, writer, resumed=trainer.last)
        with watchdog:
            # the job may have been ended while it was stopping: ask again whether it must stop
            stopped = job.search_id is not None and report.ask_again()
            outcome = trainer.run(report, stopped=stopped)
        if writer is not None:
            self._end(writer, trainer, outcome)

    def _trainer(self, job: Job, watchdog: Watchdog) -> Trainer:
        """Return the trainer of a job, at its last checkpoint if there is one."""
        settings = job.settings
        train_set, val_set = self._cache.checked_splits(settings.data, job.data_hash)
        datasets = [train_set, val_set]
        test_set = None
        if settings.data.test_split:
            test_set = self._cache.dataset(settings.data, settings.data.test_split)
            datasets.append(test_set)
        teacher = None
        if method_class(settings).needs_teacher:
            assert job.teacher_file is not None, "the driver sets it before it submits the job"
            teacher = self._cache.teacher(settings, job.teacher_file, train_set.num_classes)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        return Trainer(
            settings,
            directory=job.directory,
            train_set=train_set,
            val_set=val_set,
            readers=self._cache.readers(settings.data, *datasets),
            device=self.device,
            teacher=teacher,
            test_set=test_set,
            on_step=watchdog.on_step,
        )

    def _end(self, writer: TrialWriter, trainer: Trainer, outcome: Outcome) -> None:
        """Write how a job ended, and push it."""
        job = writer.job
        if outcome.stopped_early and writer.stop_reason == FailureKind.INTERRUPTED:
            interrupted = Event.interrupted()
            writer.write_interrupted(interrupted.failure_text)
            self._push(job, interrupted)
            return
        measured = None
        if LATENCY in job.settings.tune.metrics and not outcome.stopped_early:
            measured = latency.measure(
                outcome.best_weights,
                job.settings,
                trainer.val_set,
                readers=trainer.readers,
                device=self.device,
            )
        row = writer.write_end(outcome, trainer.val_set.class_names, measured)
        metrics = dataclasses.asdict(outcome.last) | final_objectives(job.settings, vars(row))
        self._push(job, Event(kind="done", metrics=metrics))
        writer.delete_expired()

    def _watchdog(self, job: Job) -> Watchdog:
        """Return the watchdog that ends this process when a step of the job hangs."""

        def on_hang(text: str, stack: Callable[[], str], step_s: float) -> None:
            assert self._report_hang is not None, "without it, patience is infinite"
            # before the traceback is written: the disk may be what hangs
            self._report_hang(job, f"{text}; traceback: {trace_file(job)}", step_s)
            write_trace(job, FailureKind.TIMEOUT, stack())

        patience_s = job.settings.train.step_patience_s
        if patience_s is None or self._report_hang is None:
            patience_s = math.inf
        return Watchdog(patience_s, on_hang, step_s=job.step_s)


class _Reporter:
    """Called by the trainer after each epoch: writes it, pushes it, and returns whether to stop.

    `writer` is None on other ranks than 0. `resumed` is the epoch of the checkpoint from which the
    run resumes, if any.
    """

    def __init__(
        self, job: Job, push: Push, writer: TrialWriter | None, *, resumed: EpochRecord | None
    ) -> None:
        self._job = job
        self._push = push
        self._writer = writer
        self._resumed = resumed
        self._ready_utc_s = time.time()

    def __call__(self, record: EpochRecord) -> bool:
        if self._writer is not None:
            self._writer.write_epoch(record)
        return self._must_stop(record)

    def ask_again(self) -> bool:
        """Push the epoch from which the run resumes once more; return whether to stop after it."""
        return self._resumed is not None and self._must_stop(self._resumed)

    def _must_stop(self, record: EpochRecord) -> bool:
        reason: str | None = None
        if self._writer is not None:
            metrics = dataclasses.asdict(record) | {"ready_utc_s": self._ready_utc_s}
            reason = self._push(self._job, Event(kind="epoch", metrics=metrics))
            self._writer.stop_reason = reason
        return broadcast_object(reason) is not None and record.epoch < record.epochs_total
