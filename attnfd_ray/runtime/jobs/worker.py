"""One process of a worker group: does jobs one after another, and keeps what the next one needs
too.

It keeps datasets, what reads them and the teacher; model, optimiser and device memory go with each
job, and every job seeds its own random generators. Knows torch and the store, and no Ray: `group`
brings the jobs and the ear for what it says.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import re
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from attnfd_ray.config.metrics import LATENCY
from attnfd_ray.config.overrides import digest
from attnfd_ray.config.schema import DataSettings, ExperimentSettings
from attnfd_ray.data.datasets.base import SegmentationDataset, data_hash, open_dataset, refresh
from attnfd_ray.data.loading.loader import val_batches
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.distill.method import method_class
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.errors import DataError, Diverged, NoMetric
from attnfd_ray.models import build_model
from attnfd_ray.models.files import load_weights
from attnfd_ray.runtime.jobs.failure_policy import POLICIES
from attnfd_ray.runtime.jobs.failures import describe, is_out_of_memory, keep_trace, trace_file
from attnfd_ray.runtime.jobs.messages import INTERRUPTED, Event, Job
from attnfd_ray.runtime.jobs.trial_writer import TrialWriter, final_objectives
from attnfd_ray.runtime.jobs.watchdog import Watchdog
from attnfd_ray.train import distributed, latency
from attnfd_ray.train.distributed import broadcast_object, rank, world_size
from attnfd_ray.train.evaluate import evaluate, protocol
from attnfd_ray.train.records import EpochRecord, Outcome
from attnfd_ray.train.trainer import Trainer

TEACHER_CHECK_IMAGES = (
    64  # enough to tell a trained teacher from a wrong file, few enough to be quick
)

_COLLECTIVES = Path(dist.__file__).parent
_OUR_COLLECTIVES = Path(distributed.__file__)
_BROKEN_CONNECTION = re.compile(
    r"gloo/transport|connection (closed|reset|refused)|timed out|broken pipe", re.IGNORECASE
)

Push = Callable[[Event], str | None]


class GroupMustRestart(Exception):
    """One process of several failed alone; the others wait for it in a collective and have to be
    ended.
    """


class Worker:
    """Does jobs. `push` says an event and answers why to stop, or None; for epochs only rank 0
    calls it.

    `late` hears of a step that hangs, and of the median step in seconds, just before this process
    is ended for it; without it none is.
    """

    def __init__(
        self,
        device: torch.device,
        push: Callable[[Job, Event], str | None],
        late: Callable[[Job, str, float], None] | None = None,
    ) -> None:
        self.device, self._push, self._late = device, push, late
        self._datasets: dict[str, SegmentationDataset] = {}
        self._hashes: dict[tuple[SegmentationDataset, ...], str] = {}
        self._readers = ReaderPool([])
        self._teacher: tuple[str, FrozenTeacher] | None = None
        # imported modules stay; looking through them after every job would delay the next by a
        # third of a second
        gc.freeze()

    def do(self, job: Job) -> None:
        """Do a job to its end; what goes wrong with it is said as a `failed` event, not raised.

        Raises GroupMustRestart when the other processes of the group cannot know of it, or nobody
        listens any more.
        """
        try:
            if job.kind == "train":
                self._train(job)
            else:
                self._score_teacher(job)
        except GroupMustRestart:
            raise
        except (
            Exception
        ) as error:  # whatever a user's method or data raises must not end the search
            if _is_lost_worker(error):
                raise GroupMustRestart(f"another worker of the group died: {error}") from error
            kind, text = describe(error)
            alone = not isinstance(
                error, Diverged | NoMetric
            )  # all workers see the same loss and scores
            if alone or rank() == 0:
                if POLICIES[kind].traced and keep_trace(
                    job, kind, "".join(traceback.format_exception(error))
                ):
                    text += f"; traceback: {trace_file(job)}"
                self._push(job, Event(kind="failed", failure_kind=kind, failure_text=text))
            if alone and world_size() > 1:
                raise GroupMustRestart(text) from error
        finally:
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def dataset(self, data: DataSettings, split: str) -> SegmentationDataset:
        """Return a split, opened once."""
        key = digest([data.name, data.root, split, data.cache, data.cache_gib])
        if key not in self._datasets:
            self._datasets[key] = open_dataset(data, split=split)
        return self._datasets[key]

    def _checked_splits(self, job: Job) -> tuple[SegmentationDataset, SegmentationDataset]:
        """Return the train and val split; DataError if they are not what the command looked at on
        its node.
        """
        data = job.settings.data
        for again in (False, True):
            # this node's copy of a URI may be older, or files have changed since they were opened
            if again:
                self._forget_datasets()
                refresh(data)
            train_set, val_set = (
                self.dataset(data, data.train_split),
                self.dataset(data, data.val_split),
            )
            splits = (train_set, val_set)
            if splits not in self._hashes:  # of a large set it takes a good part of a second
                self._hashes[splits] = data_hash(splits)
            here = self._hashes[splits]
            if job.data_hash in (None, here):
                return train_set, val_set
        raise DataError(
            f"{data.root} on {socket.gethostname()}: holds other files than where the command was "
            "started (data_hash "
            f"{here}, there {job.data_hash}); needed is the same dataset on every node"
        )

    def _forget_datasets(self) -> None:
        self._readers.close()
        for dataset in self._datasets.values():
            dataset.close()
        self._datasets.clear()
        self._hashes.clear()

    def readers(self, data: DataSettings, *datasets: SegmentationDataset) -> ReaderPool:
        """Return what reads the datasets, its processes kept from job to job."""
        known = self._readers
        if known.num_processes != data.loader_workers or not set(datasets) <= set(known.datasets):
            known.close()
            self._readers = ReaderPool(datasets, data.loader_workers)
        return self._readers

    def close(self) -> None:
        """End the loading processes and let go of what is kept on this node."""
        self._forget_datasets()

    def teacher(self, settings: ExperimentSettings, file: str, num_classes: int) -> FrozenTeacher:
        """Return the frozen teacher of a file of weights, loaded once."""
        assert settings.teacher is not None
        architecture = settings.teacher.model_copy(update={"pretrained": "none"})
        key = digest([file, architecture.model_dump(mode="json"), num_classes])
        if self._teacher is None or self._teacher[0] != key:
            network = build_model(architecture, num_classes=num_classes)
            load_weights(network, Path(file), num_classes=num_classes)
            self._teacher = (key, FrozenTeacher(network).to(self.device))
        return self._teacher[1]

    def _score_teacher(self, job: Job) -> None:
        """Load a teacher strictly and score it on the first images of the val split."""
        settings = job.settings
        limit = min(TEACHER_CHECK_IMAGES, settings.data.val_limit or TEACHER_CHECK_IMAGES)
        data = settings.data.model_copy(update={"val_limit": limit})
        val_set = self.dataset(data, data.val_split)
        assert job.teacher_file is not None
        teacher = self.teacher(settings, job.teacher_file, val_set.num_classes)
        readers = self.readers(data, val_set)
        batches = val_batches(
            val_set, data, readers=readers, rank=rank(), world_size=world_size(), device=self.device
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
            self._push(
                job,
                Event(kind="done", metrics={"val_miou": scored.miou, "protocol": protocol(data)}),
            )

    def _train(self, job: Job) -> None:
        settings = job.settings
        # another one may have written the end and died before it was heard
        ended = broadcast_object(TrialWriter.ended(job) if rank() == 0 and job.search_id else None)
        if ended is not None:
            if rank() == 0:
                self._push(job, ended)
            return
        book = TrialWriter.open(job, self.device) if rank() == 0 else None
        train_set, val_set = self._checked_splits(job)
        test_split = settings.data.test_split
        test_set = self.dataset(settings.data, test_split) if test_split else None
        teacher = None
        if method_class(settings).needs_teacher:
            assert job.teacher_file is not None, (
                "the driver finds the teacher before it hands out a job"
            )
            teacher = self.teacher(settings, job.teacher_file, train_set.num_classes)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        watchdog = self._watchdog(job)
        run = Trainer(
            settings,
            directory=job.directory,
            train_set=train_set,
            val_set=val_set,
            readers=self.readers(
                settings.data, train_set, val_set, *([test_set] if test_set else [])
            ),
            device=self.device,
            teacher=teacher,
            test_set=test_set,
            on_step=watchdog.on_step,
        )
        ready_utc_s, resumed = time.time(), run.last

        def report(record: EpochRecord) -> bool:
            reason: str | None = None
            if book is not None:
                if record is not resumed:
                    book.write_epoch(record)
                metrics = dataclasses.asdict(record) | {"ready_utc_s": ready_utc_s}
                reason = self._push(job, Event(kind="epoch", metrics=metrics))
                book.stop_reason = reason
            return broadcast_object(reason) is not None and record.epoch < record.epochs_total

        with watchdog:
            # a trial may have been cut off on its way to stop: whoever decides is asked again
            stopped = resumed is not None and job.search_id is not None and report(resumed)
            outcome = run.run(report, stopped=stopped)
        if book is not None:
            self._end(book, run, outcome)

    def _end(self, book: TrialWriter, run: Trainer, outcome: Outcome) -> None:
        """Write how a job ended, and say it."""
        job, settings, val_set = book.job, run.settings, run.val_set
        if outcome.stopped_early and book.stop_reason == INTERRUPTED:
            told = Event.interrupted()
            book.write_interrupted(told.failure_text)
            self._push(job, told)
            return
        timed = None
        if LATENCY in settings.tune.metrics and not outcome.stopped_early:
            timed = latency.measure(
                outcome.best_weights, settings, val_set, readers=run.readers, device=self.device
            )
        row = book.write_end(outcome, val_set.class_names, timed)
        self._push(
            job,
            Event(
                kind="done",
                metrics=dataclasses.asdict(outcome.last) | final_objectives(settings, vars(row)),
            ),
        )
        book.tidy()

    def _watchdog(self, job: Job) -> Watchdog:
        """Return what ends this process when a step of the job hangs."""

        def late(text: str, stack: Callable[[], str], step_s: float) -> None:
            assert self._late is not None, "without it patience has no end"
            # told first: what hangs may be the disk
            self._late(job, f"{text}; traceback: {trace_file(job)}", step_s)
            keep_trace(job, "TIMEOUT", stack())

        patience_s = job.settings.train.step_patience_s
        patience_s = math.inf if patience_s is None or self._late is None else patience_s
        return Watchdog(patience_s, late, step_s=job.step_s)


def _is_lost_worker(error: Exception) -> bool:
    """Return whether a collective failed because another worker is gone.

    gloo has no exception of its own for it, nor one wording: what counts is a broken connection in
    the text, or a collective of ours that failed, since those are always called alike on all
    workers.
    """
    if world_size() == 1 or not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    ours = _OUR_COLLECTIVES in frames and frames[-1].is_relative_to(_COLLECTIVES)
    return isinstance(error, dist.DistError) or bool(_BROKEN_CONNECTION.search(str(error))) or ours
