"""Sums over the global batch, for losses that are not a mean over images.

A worker holds a share of the global batch and may compute it in several parts. `batch_sum` returns
a sum over all of it, with the gradient of the whole batch, so that cutting a batch changes neither
the loss nor its gradient.
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
    """Return the sum of `local` over the global batch, as every worker and part of the batch sees
    it.

    For the `forward` of a distillation method that sets `uses_batch_sums`. `local` is a sum over
    the images the method was given and must not depend on the result of another `batch_sum`.
    Outside of a training step there is nothing to add, and `local` is returned.

    Example: the squared Frobenius norm of the global batch's features.

    >>> features_NCHW = torch.ones(2, 3, 4, 4)
    >>> batch_sum(features_NCHW.square().sum()).item()
    96.0
    """
    return local if _current is None else _current.add(local)


@dataclass
class BatchSums:
    """Makes `batch_sum` work within one optimiser step; the same calls are made on every worker.

    `all_reduce` adds a tensor over `num_workers` workers in place. A batch that is computed in
    parts goes through `collecting` first, part by part, since a sum is known only after the last
    part. Raises ConfigError where a method asks for a sum that was not collected.
    """

    all_reduce: AllReduce
    num_workers: int
    _totals: list[Tensor] = field(default_factory=list)
    _collecting: bool = False
    _next: int = 0
    _image_share: float = 1.0

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Add up the sums of one part, of which nothing else is kept."""
        self._collecting = True
        with self._active():
            yield
        self._collecting = False

    def all_collected(self) -> None:
        """Add the sums of all parts over the workers."""
        self._totals = [self.all_reduce(total) for total in self._totals]

    @contextmanager
    def part(self, image_share: float) -> Iterator[None]:
        """Compute the loss terms of one part, which holds `image_share` (0..1] of this worker's
        images.

        Terms are weighted by `image_share` and gradients are averaged over workers afterwards. The
        gradient of a sum is scaled up by as much, so that the gradients of all parts add up to that
        of the whole batch.
        """
        self._image_share = image_share
        with self._active():
            yield

    def add(self, local: Tensor) -> Tensor:
        """Return the sum over the global batch for the next call of `batch_sum` in this forward
        pass.
        """
        index, self._next = self._next, self._next + 1
        if self._collecting:
            if index == len(self._totals):
                self._totals.append(torch.zeros_like(local))
            self._totals[index] += local.detach()
            return local
        if self._image_share == 1 and not self._totals:
            total = self.all_reduce(local.detach().clone())
        elif index < len(self._totals):
            total = self._totals[index]
        else:
            raise ConfigError(
                "method: it calls batch_sum, so its class needs uses_batch_sums = True"
            )
        # the value is the total's; adding zero with a gradient gives it the gradient of `local`
        return total + self.num_workers / self._image_share * (local - local.detach())

    @contextmanager
    def _active(self) -> Iterator[None]:
        global _current
        _current, self._next = self, 0
        try:
            yield
        finally:
            _current = None


_current: BatchSums | None = None
