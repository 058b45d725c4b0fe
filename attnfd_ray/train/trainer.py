"""One training run from its first epoch, or from its last checkpoint, to its end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attnfd_ray.config.schema import DataSettings, ExperimentSettings, TrainSettings
from attnfd_ray.data.datasets.base import SegmentationDataset
from attnfd_ray.data.loading.loader import TrainLoader, val_batches
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.distill.method import build_method
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.errors import CheckpointError, NoMetric
from attnfd_ray.models import SegmentationModel, build_model
from attnfd_ray.models.files import load_weights, save_model
from attnfd_ray.train import checkpoint
from attnfd_ray.train.distributed import (
    broadcast_object,
    convert_sync_batchnorm,
    rank,
    seed_everything,
    world_size,
)
from attnfd_ray.train.evaluate import evaluate, for_test
from attnfd_ray.train.gradients import GradientMeter
from attnfd_ray.train.metrics import Scores
from attnfd_ray.train.optim import build_optimizer
from attnfd_ray.train.records import EpochRecord, Outcome
from attnfd_ray.train.step import OnStep, StepRunner, ignore_step
from attnfd_ray.train.task import DistillationTask

Report = Callable[[EpochRecord], bool]


class Trainer:
    """One student in training; the same object on every worker of the run.

    `directory` is the run's own and shared by its workers; rank 0 writes there. `teacher` is needed
    by methods that learn from one and outlives the run, and so do `readers`, which know the
    datasets. `test_set` is scored once, at the end; `on_step` hears of each optimiser step as
    `StepRunner` says. Raises Diverged when the loss is no longer finite, NoMetric when no pixel of
    the val split counts.
    """

    def __init__(
        self,
        settings: ExperimentSettings,
        *,
        directory: Path,
        train_set: SegmentationDataset,
        val_set: SegmentationDataset,
        readers: ReaderPool,
        device: torch.device,
        teacher: FrozenTeacher | None = None,
        test_set: SegmentationDataset | None = None,
        clock: Callable[[], float] = time.perf_counter,
        on_step: OnStep = ignore_step,
    ) -> None:
        self.settings, self.directory, self.device, self.clock = settings, directory, device, clock
        self.on_step = on_step
        self.train_set, self.val_set, self.test_set, self.readers = (
            train_set,
            val_set,
            test_set,
            readers,
        )
        found, state = self._kept()
        # Building is seeded like an epoch before the first, and the same on every worker.
        seed_everything(settings.train.seed, epoch=0, rank=0)
        # a checkpoint holds all weights: the file of the first ones is not needed any more
        first = (
            settings.student
            if found is None
            else settings.student.model_copy(update={"pretrained": "none"})
        )
        student = build_model(first, num_classes=train_set.num_classes)
        method, taps = build_method(settings, student, teacher)
        self.teacher = teacher if method.needs_teacher else None
        if settings.train.sync_batchnorm:
            student, method = (
                convert_sync_batchnorm(student, device),
                convert_sync_batchnorm(method, device),
            )
        factor = 1 / settings.train.batch_size if method.loss_over_batch_size else 1.0
        self.task = DistillationTask(student, method, taps, factor=factor).to(device)
        layout = memory_layout(settings.train, device)
        self.task = self.task.to(memory_format=layout)
        if self.teacher is not None:
            if device.type == "cpu" and settings.train.precision == "fp32":
                self.teacher.pack()  # stays packed from run to run, in a layout of its own
            else:
                self.teacher.to(memory_format=layout)
            self.teacher.set_mode(method.teacher_mode).set_taps(taps)
        self.optimizer = build_optimizer(self.task, settings.optim)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.train.precision == "fp16")
        self.last: EpochRecord | None = None
        if found is not None:
            self.resume(found, state)

    @property
    def student(self) -> SegmentationModel:
        """The network that is trained; nothing of the method is part of it."""
        return self.task.student

    @property
    def best_weights(self) -> Path:
        """The file of the best epoch's student."""
        return self.directory / "best.safetensors"

    @property
    def last_weights(self) -> Path:
        """The file of the last epoch's student, written when the run ends."""
        return self.directory / "last.safetensors"

    def run(self, report: Report, *, stopped: bool = False) -> Outcome:
        """Train to the end, or until `report` (called after each epoch, on every worker) returns
        True.

        `stopped` is for a run that goes on and was to stop after its last epoch already.
        """
        settings, train = self.settings, self.settings.train
        loader = TrainLoader(
            self.train_set,
            settings.data,
            readers=self.readers,
            global_batch_size=train.batch_size,
            seed=train.seed,
            rank=rank(),
            world_size=world_size(),
            steps_per_epoch=train.steps_per_epoch,
            device=self.device,
        )
        stepper = StepRunner(
            self.task,
            self.teacher,
            self.optimizer,
            self.scaler,
            settings,
            device=self.device,
            total=loader.steps * train.epochs,
            on_step=self.on_step,
        )
        while not stopped and (self.last is None or self.last.epoch < train.epochs):
            self.last = self.epoch(stepper, loader)
            stopped = report(self.last)
            self.save()
        assert self.last is not None, "a run has at least one epoch"
        self.write(self.last_weights)
        params = sum(parameter.numel() for parameter in self.student.parameters())
        return Outcome(
            last=self.last,
            stopped_early=stopped,
            student_params=params,
            best_weights=self.best_weights,
            test=None if stopped else self.test(),
        )

    def epoch(self, stepper: StepRunner, loader: TrainLoader) -> EpochRecord:
        """Train one epoch and score it."""
        train, number = self.settings.train, (self.last.epoch if self.last else 0) + 1
        start = self.clock()
        seed_everything(train.seed, epoch=number, rank=rank())
        self.task.train()
        self.task.freeze(self.task.method.frozen_prefixes(number))
        gradients = GradientMeter(self.student, steps=loader.steps, checks=train.gradient_checks)
        terms, lr = stepper.epoch(
            loader.epoch(number), first_step=(number - 1) * loader.steps, gradients=gradients
        )
        trained = self.clock()
        scored = self.score(self.student, self.val_set, self.settings.data)
        best_miou, best_epoch = (
            (self.last.best_miou, self.last.best_epoch) if self.last else (-1.0, 0)
        )
        if scored.miou > best_miou:
            best_miou, best_epoch = scored.miou, number
        return EpochRecord(
            epoch=number,
            epochs_total=train.epochs,
            train_loss=sum(terms.values()),
            loss_terms=terms,
            val_miou=scored.miou,
            val_pixel_acc=scored.pixel_acc,
            val_class_acc=scored.class_acc,
            class_iou=scored.class_iou,
            lr=lr,
            images_per_s=loader.steps * train.batch_size / (trained - start),
            wall_s=self.clock() - start,
            best_miou=best_miou,
            best_epoch=best_epoch,
            gradient_norms=gradients.norms,
            gradient_cosines=gradients.cosines,
        )

    def test(self) -> Scores | None:
        """Score the weights of the best epoch on the test split, if there is one: nothing was
        chosen by it.

        None too for a split whose labels are withheld, all pixels ignored.
        """
        if self.test_set is None:
            return None
        settings = self.settings
        num_classes = self.test_set.num_classes
        network = build_model(
            settings.student.model_copy(update={"pretrained": "none"}), num_classes=num_classes
        )
        if rank() == 0:  # the file may not be seen everywhere yet
            load_weights(network, self.best_weights, num_classes=num_classes)
        network.load_state_dict(broadcast_object(network.state_dict()))
        network = network.to(self.device).to(
            memory_format=memory_layout(settings.train, self.device)
        )
        try:
            return self.score(network, self.test_set, for_test(settings.data))
        except NoMetric:
            return None

    def score(self, network: nn.Module, dataset: SegmentationDataset, data: DataSettings) -> Scores:
        """Score a network on a split, each worker on its part of it."""
        batches = val_batches(
            dataset,
            data,
            readers=self.readers,
            rank=rank(),
            world_size=world_size(),
            device=self.device,
        )
        return evaluate(
            network,
            batches,
            num_classes=dataset.num_classes,
            device=self.device,
            data=data,
            train=self.settings.train,
        )

    def write(self, file: Path) -> None:
        """Write the student's weights as a plain network that anyone can load."""
        if rank() == 0 and self.last is not None:
            save_model(
                self.student,
                file,
                settings=self.settings.student,
                num_classes=self.val_set.num_classes,
                class_names=self.val_set.class_names,
                extra={"epoch": str(self.last.epoch)},
            )

    def save(self) -> None:
        """Write the whole state after the last epoch, then its weights if they are the best so far.

        In this order: killed in between, the run finds the state and writes the weights when it
        resumes.
        """
        if rank() == 0 and self.last is not None:
            state = {
                "task": self.task.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
            record = dataclasses.asdict(self.last)
            checkpoint.save(
                self.directory / "checkpoints", epoch=self.last.epoch, state=state, record=record
            )
        self._write_if_best()

    def _write_if_best(self) -> None:
        if self.last is not None and self.last.best_epoch == self.last.epoch:
            self.write(self.best_weights)

    def _kept(self) -> tuple[checkpoint.Checkpoint | None, dict[str, Any]]:
        """Return the last complete checkpoint and its state, if there is one."""
        # one worker reads for all: on a shared disk another may not see the newest yet
        found = checkpoint.latest(self.directory / "checkpoints") if rank() == 0 else None
        kept: tuple[checkpoint.Checkpoint | None, dict[str, Any]]
        kept = broadcast_object((found, found.load() if found else {}))
        return kept

    def resume(self, found: checkpoint.Checkpoint, state: dict[str, Any]) -> None:
        """Go on after a checkpoint."""
        try:
            self.task.load_state_dict(state["task"])
            self.optimizer.load_state_dict(state["optimizer"])
            if state["scaler"]:
                self.scaler.load_state_dict(state["scaler"])
            self.last = EpochRecord(**found.record)
        except (RuntimeError, ValueError, KeyError, TypeError):
            raise CheckpointError(
                f"{found.directory}: is of another network, method or version; start over with "
                "--fresh, "
                f"or delete {self.directory}"
            ) from None
        self._write_if_best()


def memory_layout(train: TrainSettings, device: torch.device) -> torch.memory_format:
    """Return the layout of weights; convolutions hand it on to the features they compute."""
    wanted = train.channels_last
    if wanted == "auto":
        wanted = device.type == "cpu" or train.precision != "fp32"
    return torch.channels_last if wanted else torch.contiguous_format
