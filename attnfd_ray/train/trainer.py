"""One training run, from its first epoch or its last checkpoint to its end. No ray."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from attnfd_ray.config.schema import DataSettings, ExperimentSettings
from attnfd_ray.data.datasets.base import SegmentationDataset
from attnfd_ray.data.loading.loader import TrainLoader, val_batches
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.errors import CheckpointError, NoMetric
from attnfd_ray.models import SegmentationModel, build_model
from attnfd_ray.models.files import load_weights, save_model
from attnfd_ray.run_files import BEST_WEIGHTS, CHECKPOINTS, LAST_WEIGHTS
from attnfd_ray.train import checkpoint
from attnfd_ray.train.build import build_task, without_pretrained
from attnfd_ray.train.distributed import broadcast_object, rank, seed_everything, world_size
from attnfd_ray.train.evaluate import evaluate, for_test
from attnfd_ray.train.gradients import GradientMeter
from attnfd_ray.train.metrics import Scores
from attnfd_ray.train.optim import build_optimizer
from attnfd_ray.train.precision import memory_layout
from attnfd_ray.train.records import EpochRecord, Outcome
from attnfd_ray.train.step import OnStep, StepRunner, ignore_step

Report = Callable[[EpochRecord], bool]


class Trainer:
    """Trains one student. Each worker of the run has a Trainer with the same arguments.

    `directory` belongs to the run and is shared by its workers; rank 0 writes there. `teacher` is
    needed by methods that learn from one. The teacher and `readers` serve several runs, and
    `readers` were made for these datasets. `test_set` is scored once, at the end. `on_step` is
    called for each optimiser step as `StepRunner` describes. If the directory has a checkpoint, the
    run resumes from it, and `last` is the record of its epoch. Raises Diverged when the loss is not
    finite, NoMetric when no pixel of the val split counts, and CheckpointError when the checkpoint
    does not fit.
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
        self.settings = settings
        self.directory = directory
        self.train_set = train_set
        self.val_set = val_set
        self.test_set = test_set
        self.readers = readers
        self.device = device
        self.clock = clock
        self.on_step = on_step
        self.last: EpochRecord | None = None
        saved, state = self._latest_checkpoint()
        self.task, self.teacher = build_task(
            settings,
            teacher,
            num_classes=train_set.num_classes,
            device=device,
            is_resumed=saved is not None,
        )
        self.optimizer = build_optimizer(self.task, settings.optim)
        is_fp16 = settings.train.precision == "fp16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=is_fp16)
        if saved is not None:
            self.resume(saved, state)

    @property
    def student(self) -> SegmentationModel:
        """The trained network; nothing of the method is part of it."""
        return self.task.student

    @property
    def best_weights(self) -> Path:
        """The file of the best epoch's student."""
        return self.directory / BEST_WEIGHTS

    @property
    def last_weights(self) -> Path:
        """The file of the last epoch's student, written when the run ends."""
        return self.directory / LAST_WEIGHTS

    def run(self, report: Report, *, stopped: bool = False) -> Outcome:
        """Train to the end, or until `report` returns True.

        `report` is called after each epoch, on every worker. `stopped` is for a resumed run that
        was to stop after its last epoch already.
        """
        train = self.settings.train
        loader = TrainLoader(
            self.train_set,
            self.settings.data,
            readers=self.readers,
            global_batch_size=train.batch_size,
            seed=train.seed,
            rank=rank(),
            world_size=world_size(),
            steps_per_epoch=train.steps_per_epoch,
            device=self.device,
        )
        runner = StepRunner(
            self.task,
            self.teacher,
            self.optimizer,
            self.scaler,
            self.settings,
            device=self.device,
            total=loader.steps * train.epochs,
            on_step=self.on_step,
        )
        while not stopped and self._epochs_done < train.epochs:
            self.last = self.epoch(runner, loader)
            stopped = report(self.last)
            self.save()
        assert self.last is not None, "a run has at least one epoch"
        self.write(self.last_weights)
        test_scores = None
        if not stopped:
            test_scores = self.test()
        return Outcome(
            last=self.last,
            stopped_early=stopped,
            student_params=sum(parameter.numel() for parameter in self.student.parameters()),
            best_weights=self.best_weights,
            test=test_scores,
        )

    def epoch(self, runner: StepRunner, loader: TrainLoader) -> EpochRecord:
        """Train one epoch and score it on the val split."""
        train = self.settings.train
        number = self._epochs_done + 1
        start = self.clock()
        seed_everything(train.seed, epoch=number, rank=rank())
        self.task.train()
        self.task.freeze(self.task.method.frozen_prefixes(number))
        gradients = GradientMeter(self.student, steps=loader.steps, checks=train.gradient_checks)
        first_step = (number - 1) * loader.steps
        terms, lr = runner.epoch(loader.epoch(number), first_step=first_step, gradients=gradients)
        trained = self.clock()
        scores = self.score(self.student, self.val_set, self.settings.data)
        if self.last is None or scores.miou > self.last.best_miou:
            best_miou = scores.miou
            best_epoch = number
        else:
            best_miou = self.last.best_miou
            best_epoch = self.last.best_epoch
        return EpochRecord(
            epoch=number,
            epochs_total=train.epochs,
            train_loss=sum(terms.values()),
            loss_terms=terms,
            val_miou=scores.miou,
            val_pixel_acc=scores.pixel_acc,
            val_class_acc=scores.class_acc,
            class_iou=scores.class_iou,
            lr=lr,
            images_per_s=loader.steps * train.batch_size / (trained - start),
            wall_s=self.clock() - start,
            best_miou=best_miou,
            best_epoch=best_epoch,
            gradient_norms=gradients.norms,
            gradient_cosines=gradients.cosines,
        )

    def test(self) -> Scores | None:
        """Score the best epoch's weights on the test split, which nothing was chosen on.

        None without a test split, or where its labels are withheld (all pixels are ignored).
        """
        if self.test_set is None:
            return None
        num_classes = self.test_set.num_classes
        network = build_model(without_pretrained(self.settings.student), num_classes=num_classes)
        if rank() == 0:  # on a shared disk other workers may not see the file yet
            load_weights(network, self.best_weights, num_classes=num_classes)
        network.load_state_dict(broadcast_object(network.state_dict()))
        layout = memory_layout(self.settings.train, self.device)
        network = network.to(self.device).to(memory_format=layout)
        try:
            return self.score(network, self.test_set, for_test(self.settings.data))
        except NoMetric:
            return None

    def score(self, network: nn.Module, dataset: SegmentationDataset, data: DataSettings) -> Scores:
        """Score a network on a split; each worker reads its part of it."""
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
        """Write the student's weights as a plain network, without anything of the method."""
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
        """Write a checkpoint of the last epoch, then its weights if they are the best so far.

        In this order: a run killed in between writes the weights when it resumes.
        """
        if rank() == 0 and self.last is not None:
            state = {
                "task": self.task.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
            checkpoint.save(
                self._checkpoints,
                epoch=self.last.epoch,
                state=state,
                record=dataclasses.asdict(self.last),
            )
        self._write_if_best()

    def resume(self, saved: checkpoint.Checkpoint, state: checkpoint.State) -> None:
        """Take over the state of a checkpoint.

        Raises CheckpointError where it is of another network, method or version.
        """
        try:
            self.task.load_state_dict(state["task"])
            self.optimizer.load_state_dict(state["optimizer"])
            if state["scaler"]:
                self.scaler.load_state_dict(state["scaler"])
            self.last = EpochRecord(**saved.record)
        except (RuntimeError, ValueError, KeyError, TypeError):
            raise CheckpointError(
                f"{saved.directory}: is of another network, method or version; start over with "
                f"--fresh, or delete {self.directory}"
            ) from None
        self._write_if_best()

    @property
    def _epochs_done(self) -> int:
        if self.last is None:
            return 0
        return self.last.epoch

    @property
    def _checkpoints(self) -> Path:
        return self.directory / CHECKPOINTS

    def _latest_checkpoint(self) -> tuple[checkpoint.Checkpoint | None, checkpoint.State]:
        """Return the last complete checkpoint and its state, if there is one."""
        saved: checkpoint.Checkpoint | None = None
        state: checkpoint.State = {}
        # Rank 0 reads for all: on a shared disk other workers may not see the newest one yet.
        if rank() == 0:
            saved = checkpoint.latest(self._checkpoints)
            if saved is not None:
                state = saved.load()
        return broadcast_object((saved, state))

    def _write_if_best(self) -> None:
        if self.last is not None and self.last.best_epoch == self.last.epoch:
            self.write(self.best_weights)
