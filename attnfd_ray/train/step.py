"""The optimiser step: teacher features, loss terms, gradients, update. No ray."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.types import IGNORED
from attnfd_ray.distill.batch_sums import BatchSums
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.errors import Diverged
from attnfd_ray.train.distributed import all_reduce_sum, world_size, wrap_ddp
from attnfd_ray.train.gradients import GradientMeter
from attnfd_ray.train.optim import set_learning_rate
from attnfd_ray.train.precision import autocast
from attnfd_ray.train.task import DistillationTask

_STEPS_BETWEEN_CHECKS = 50  # reading the loss makes the device wait, so not at every step

Batch = tuple[Tensor, Tensor]
OnStep = Callable[[int | None], None]


def ignore_step(step: int | None) -> None:
    """Do nothing: the default of `on_step`."""


class StepRunner:
    """Runs optimiser steps on a task, together with the other workers of the run.

    `total` is the number of steps of the whole run. `on_step` is called with the number of each
    step (from 1) before its batch is loaded, and with None after the last step of an epoch.
    """

    def __init__(
        self,
        task: DistillationTask,
        teacher: FrozenTeacher | None,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        settings: ExperimentSettings,
        *,
        device: torch.device,
        total: int,
        on_step: OnStep = ignore_step,
    ) -> None:
        self.task = task
        self.module: nn.Module = task
        self.teacher = teacher
        self.optimizer = optimizer
        self.scaler = scaler
        self.settings = settings
        self.device = device
        self.total = total
        self.on_step = on_step

    def epoch(
        self,
        batches: Iterable[Batch],
        *,
        first_step: int,
        gradients: GradientMeter | None = None,
    ) -> tuple[dict[str, float], float]:
        """Run the steps of one epoch on this worker's batches.

        Returns the mean of each loss term over steps and workers, and the last learning rate.
        `gradients` measures at the steps where it is due. Raises Diverged, on every worker at once,
        when the loss is not finite.
        """
        # Wrapped anew for each epoch: DistributedDataParallel regroups gradients after its first
        # step and then adds them in another order. An epoch must begin in the same state whether
        # or not the run was stopped before it.
        self.module = self.task  # frees the last wrapper, which holds a copy of every gradient
        self.module = wrap_ddp(self.task, self.device)
        sums: dict[str, Tensor] = {}
        lr = 0.0
        count = 0
        self.on_step(first_step + 1)
        for images_NCHW, labels_NHW in batches:
            lr = set_learning_rate(
                self.optimizer, self.settings.optim, step=first_step + count, total=self.total
            )
            due_gradients = None
            if gradients is not None and count + 1 in gradients.due_steps:
                due_gradients = gradients
            terms = self.step(images_NCHW, labels_NHW, gradients=due_gradients)
            for name, term in terms.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + term
            count += 1
            if count % _STEPS_BETWEEN_CHECKS == 0:
                self._mean_terms(sums, count, first_step)
            self.on_step(first_step + count + 1)
        means = self._mean_terms(sums, count, first_step)
        self.on_step(None)
        return means, lr

    def step(
        self, images_NCHW: Tensor, labels_NHW: Tensor, *, gradients: GradientMeter | None = None
    ) -> dict[str, Tensor]:
        """Run one optimiser step on this worker's images; return its detached loss terms.

        DistributedDataParallel averages gradients over workers. So the summed cross-entropy is
        divided by the labelled pixels of the global batch / workers. `gradients` measures the terms
        of the first part.
        """
        labelled = all_reduce_sum((labels_NHW != IGNORED).sum().float())
        labelled = (labelled / world_size()).clamp(min=1.0 / world_size())
        num_parts = self.settings.train.accumulate
        image_parts = images_NCHW.chunk(num_parts)
        parts = list(zip(image_parts, labels_NHW.chunk(num_parts), strict=True))
        sums = BatchSums(all_reduce_sum, world_size())
        if num_parts > 1 and self.task.method.uses_batch_sums:
            self._collect(parts, sums, labelled_pixels=labelled)
        total: dict[str, Tensor] = {}
        for number, (images, labels) in enumerate(parts, start=1):
            with self._gradient_sync(is_last=number == num_parts):
                image_share = len(images) / len(images_NCHW)
                with autocast(self.device, self.settings.train), sums.part(image_share):
                    terms = self.module(
                        images,
                        labels,
                        self._teacher_features(images),
                        labelled_pixels=labelled,
                        image_share=image_share,
                    )
                if gradients is not None and number == 1:
                    gradients.measure(terms, self.scaler)
                loss = torch.stack(list(terms.values())).sum()
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            for name, term in terms.items():
                total[name] = total.get(name, 0) + term.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _gradient_sync(self, *, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Return a context in which workers share gradients only in the last part of a batch."""
        if isinstance(self.module, DistributedDataParallel) and not is_last:
            return self.module.no_sync()
        return contextlib.nullcontext()

    def _teacher_features(self, images_NCHW: Tensor) -> dict[str, Tensor]:
        if self.teacher is None:
            return {}
        features: dict[str, Tensor] = self.teacher(images_NCHW)
        return features

    @torch.no_grad()
    def _collect(self, parts: Sequence[Batch], sums: BatchSums, *, labelled_pixels: Tensor) -> None:
        """Collect the batch sums of all parts in a forward pass of their own.

        Buffers and random generators are restored. So the training pass that follows draws the same
        random numbers (dropout), and these sums are the ones it would compute.
        """
        buffers = {name: buffer.clone() for name, buffer in self.task.named_buffers()}
        devices: list[torch.device] = []
        if self.device.type == "cuda":
            devices = [self.device]
        with torch.random.fork_rng(devices=devices):
            for images, labels in parts:
                with autocast(self.device, self.settings.train), sums.collecting():
                    self.task(
                        images,
                        labels,
                        self._teacher_features(images),
                        labelled_pixels=labelled_pixels,
                        image_share=1 / len(parts),
                    )
        for name, buffer in self.task.named_buffers():
            buffer.copy_(buffers[name])
        sums.all_collected()

    def _mean_terms(self, sums: dict[str, Tensor], count: int, first_step: int) -> dict[str, float]:
        """Return each term's mean over steps and workers.

        Raises Diverged where one is not finite; the means are the same on every worker.
        """
        means = all_reduce_sum(torch.stack(list(sums.values())) / (count * world_size()))
        terms = dict(zip(sums, means.tolist(), strict=True))
        not_finite = [name for name, value in terms.items() if not math.isfinite(value)]
        if not_finite:
            raise Diverged(
                f"the loss is not finite after step {first_step + count} of {self.total} "
                f"({', '.join(not_finite)}); lower optim.lr"
            )
        return terms
