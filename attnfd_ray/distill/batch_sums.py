"""Sums over the global batch, for losses that are not a mean over images.

A worker holds a share of the global batch and may compute it in several parts. `batch_sum` returns
a sum over all of it, with the gradient of the whole batch. Cutting a batch then changes neither the
loss nor its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attnfd_ray.errors import ConfigError

AllReduce = Callable[[Tensor], Tensor]


def batch_sum(local: Tensor) -> Tensor:
    """Return the sum of `local` over the global batch, the same on every worker and in every part.

    For the `forward` of a distillation method that sets `uses_batch_sums`. `local`, of any shape,
    is a sum over the images the method was given. It must not depend on the result of another
    `batch_sum`. Outside of a training step `local` is returned unchanged.

    Raises ConfigError where the batch is computed in parts and the method's class does not set
    `uses_batch_sums`.

    Example: the squared Frobenius norm of the global batch's features.

    >>> features_NCHW = torch.ones(2, 3, 4, 4)
    >>> batch_sum(features_NCHW.square().sum()).item()
    96.0
    """
    if _current is None:
        return local
    return _current.add(local)


@dataclass
class BatchSums:
    """Makes `batch_sum` work within one optimiser step; the same calls are made on every worker.

    `all_reduce` adds a tensor over `num_workers` workers in place. A sum is known only after the
    last part of a batch. So a batch in several parts goes through `collecting` first, part by part.
    Raises ConfigError where a method asks for a sum that was not collected.
    """

    all_reduce: AllReduce
    num_workers: int
    _totals: list[Tensor] = field(default_factory=list)
    _collecting: bool = False
    _next: int = 0
    _image_share: float = 1.0

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Add up the sums of one part, and keep nothing else of it."""
        self._collecting = True
        with self._active():
            yield
        self._collecting = False

    def all_collected(self) -> None:
        """Add the sums of all parts over the workers."""
        self._totals = [self.all_reduce(total) for total in self._totals]

    @contextmanager
    def part(self, image_share: float) -> Iterator[None]:
        """Compute the loss terms of one part: `image_share`, in (0, 1], of this worker's images.

        Terms are weighted by `image_share`, and gradients are averaged over workers afterwards. The
        gradient of a sum is scaled up by as much, so that the gradients of all parts add up to that
        of the whole batch.
        """
        self._image_share = image_share
        with self._active():
            yield

    def add(self, local: Tensor) -> Tensor:
        """Return the sum over the global batch for the next `batch_sum` of this forward pass."""
        index = self._next
        self._next += 1
        if self._collecting:
            self._collect(index, local)
            return local
        total = self._total(index, local)
        # the value is the total's; adding zero with a gradient gives it the gradient of `local`
        return total + self.num_workers / self._image_share * (local - local.detach())

    def _collect(self, index: int, local: Tensor) -> None:
        if index == len(self._totals):
            self._totals.append(torch.zeros_like(local))
        self._totals[index] += local.detach()

    def _total(self, index: int, local: Tensor) -> Tensor:
        if self._image_share == 1 and not self._totals:
            return self.all_reduce(local.detach().clone())
        if index >= len(self._totals):
            raise ConfigError(
                "method: it calls batch_sum, so its class needs uses_batch_sums = True"
            )
        return self._totals[index]

    @contextmanager
    def _active(self) -> Iterator[None]:
        global _current
        _current = self
        self._next = 0
        try:
            yield
        finally:
            _current = None


_current: BatchSums | None = None
