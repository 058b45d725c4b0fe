"""The optimiser step: teacher features, loss terms, gradients, update."""

from __future__ import annotations

import contextlib
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
from attnfd_ray.train.evaluate import autocast
from attnfd_ray.train.gradients import GradientMeter
from attnfd_ray.train.optim import set_learning_rate
from attnfd_ray.train.task import DistillationTask

_STEPS_BETWEEN_CHECKS = 50  # looking at the loss makes the device wait, so not at every step


OnStep = Callable[[int | None], None]


def ignore_step(step: int | None) -> None:
    """Hear of a step, and do nothing."""


class StepRunner:
    """Takes optimiser steps on a task, together with the other workers of the run.

    `on_step` hears the number of each step before its batch is waited for, and None when an epoch's
    are over.
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
        self.task, self.teacher, self.optimizer, self.scaler = task, teacher, optimizer, scaler
        self.module: nn.Module = task
        self.settings, self.device, self.total, self.on_step = settings, device, total, on_step

    def epoch(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        *,
        first_step: int,
        gradients: GradientMeter | None = None,
    ) -> tuple[dict[str, float], float]:
        """Step through one epoch's local batches; return the mean of each loss term over all
        workers, and the lr.

        `gradients` measures at the steps where it is due. Raises Diverged, on every worker at once,
        when the loss stops being finite.
        """
        # Wrapped anew: after its first step DistributedDataParallel regroups gradients, and so adds
        # them up in another order. An epoch must begin alike whether or not the run was stopped
        # before it.
        self.module = self.task  # lets go of the last wrapper, which holds a copy of every gradient
        self.module = wrap_ddp(self.task, self.device)
        sums: dict[str, Tensor] = {}
        lr, count = 0.0, 0
        self.on_step(first_step + 1)
        for images_NCHW, labels_NHW in batches:
            lr = set_learning_rate(
                self.optimizer, self.settings.optim, step=first_step + count, total=self.total
            )
            due = gradients is not None and count + 1 in gradients.due_steps
            terms = self.step(images_NCHW, labels_NHW, gradients=gradients if due else None)
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
        """Take one optimiser step on this worker's share of a global batch; return its detached
        loss terms.

        DistributedDataParallel averages gradients over workers, so the divisor of the summed
        cross-entropy is the number of labelled pixels of the global batch / workers. `gradients`
        measures the terms of the first part.
        """
        labelled = all_reduce_sum((labels_NHW != IGNORED).sum().float())
        labelled = (labelled / world_size()).clamp(min=1.0 / world_size())
        num_parts = self.settings.train.accumulate
        parts = list(zip(images_NCHW.chunk(num_parts), labels_NHW.chunk(num_parts), strict=True))
        sums = BatchSums(all_reduce_sum, world_size())
        if num_parts > 1 and self.task.method.uses_batch_sums:
            self._collect(parts, sums, labelled_pixels=labelled)
        total: dict[str, Tensor] = {}
        for index, (images, labels) in enumerate(parts, start=1):
            wait = isinstance(self.module, DistributedDataParallel) and index < num_parts
            with self.module.no_sync() if wait else contextlib.nullcontext():  # type: ignore[operator]
                image_share = len(images) / len(images_NCHW)
                with autocast(self.device, self.settings.train), sums.part(image_share):
                    features = self.teacher(images) if self.teacher is not None else {}
                    terms = self.module(
                        images, labels, features, labelled_pixels=labelled, image_share=image_share
                    )
                if gradients is not None and index == 1:
                    gradients.measure(terms, self.scaler)
                self.scaler.scale(torch.stack(list(terms.values())).sum()).backward()  # type: ignore[no-untyped-call]
            for name, term in terms.items():
                total[name] = total.get(name, 0) + term.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    @torch.no_grad()
    def _collect(
        self, parts: Sequence[tuple[Tensor, Tensor]], sums: BatchSums, *, labelled_pixels: Tensor
    ) -> None:
        """Run the forward passes of all parts once for their sums; the state and the random numbers
        stay as they were.

        The pass that follows draws the same random numbers (dropout) again, so the sums are its
        own.
        """
        buffers = {name: buffer.clone() for name, buffer in self.task.named_buffers()}
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            for images, labels in parts:
                with autocast(self.device, self.settings.train), sums.collecting():
                    features = self.teacher(images) if self.teacher is not None else {}
                    self.task(
                        images,
                        labels,
                        features,
                        labelled_pixels=labelled_pixels,
                        image_share=1 / len(parts),
                    )
        for name, buffer in self.task.named_buffers():
            buffer.copy_(buffers[name])
        sums.all_collected()

    def _mean_terms(self, sums: dict[str, Tensor], count: int, first_step: int) -> dict[str, float]:
        """Return each term's mean over steps and workers; the same numbers everywhere, so all
        workers agree.
        """
        means = all_reduce_sum(torch.stack(list(sums.values())) / (count * world_size()))
        terms = dict(zip(sums, means.tolist(), strict=True))
        if not torch.isfinite(means).all():
            bad = ", ".join(
                name for name, value in terms.items() if not -float("inf") < value < float("inf")
            )
            raise Diverged(
                f"the loss is not finite after step {first_step + count} of {self.total} ({bad}); "
                "lower optim.lr"
            )
        return terms
