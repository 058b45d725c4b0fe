"""Batches for one of the workers that train together; which ones, depends on seed and epoch alone.

The global batch, its order and the random views in it are the same for any number of workers and loading processes,
and for a run that was interrupted: a view's generator is seeded by (seed, epoch, place in the epoch).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.dataset import SegmentationDataset
from attnfd_ray.data.processes import TIMEOUT_S, LoadingProcesses
from attnfd_ray.data.transforms import eval_transform, train_transform

Batch = tuple[Tensor, Tensor]

# What a stream of random numbers is for. Comes first in its seed: NumPy takes [1, 2] and [1, 2, 0] for the same.
_ORDER, _VIEW = 1, 2


class TrainLoader:
    """The batches of one worker, epoch after epoch; keeps its loading processes until closed."""

    def __init__(
        self,
        dataset: SegmentationDataset,
        data: DataSettings,
        *,
        global_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        steps_per_epoch: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        assert global_batch_size % world_size == 0, "every worker takes an equal part of the global batch"
        self.steps = steps_in_epoch(len(dataset), global_batch_size, steps_per_epoch)
        self._num_images, self._seed, self._rank = len(dataset), seed, rank
        self._global_batch_size, self._batch_size = global_batch_size, global_batch_size // world_size
        self._processes = LoadingProcesses(_TrainViews(dataset, data, seed), data.loader_workers, timeout_s)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield `steps` batches: images_N3HW (float32) and labels_NHW (int64), N this worker's part of the batch.

        A split smaller than what is asked for starts over. DataError where a file cannot be read.
        """
        order = _generator(_ORDER, self._seed, epoch).permutation(self._num_images)
        order = np.resize(order, self.steps * self._global_batch_size)
        places = np.arange(len(order)).reshape(self.steps, -1)
        mine = places[:, self._rank * self._batch_size :][:, : self._batch_size]
        return self._processes.map([[_Place(epoch, int(place), int(order[place])) for place in step] for step in mine])

    def close(self) -> None:
        """End the loading processes; the next epoch starts new ones."""
        self._processes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def val_batches(
    dataset: SegmentationDataset, data: DataSettings, *, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """Yield image_13hw (float32) and label_1HW (int64) of every world_size-th image of the split.

    `data.evaluation` says how large they are. Over all ranks each of the first `data.val_limit` images comes once.
    DataError where a file cannot be read.
    """
    processes = LoadingProcesses(_ValImages(dataset, data), data.loader_workers)
    try:
        yield from processes.map(range(rank, min(len(dataset), data.val_limit or len(dataset)), world_size))
    finally:
        processes.close()


def steps_in_epoch(num_images: int, global_batch_size: int, steps_per_epoch: int | None = None) -> int:
    """Return the optimiser steps of an epoch: as set, else the whole global batches in the split, at least one."""
    return steps_per_epoch or max(1, num_images // global_batch_size)


class _Place(NamedTuple):
    """Which image is seen where in which epoch."""

    epoch: int
    place: int
    image: int


@dataclass(frozen=True)
class _TrainViews:
    """Makes one worker's part of a global batch."""

    dataset: SegmentationDataset
    data: DataSettings
    seed: int

    def __call__(self, places: Sequence[_Place]) -> Batch:
        images, labels = zip(*map(self._view, places), strict=True)
        return torch.stack(images), torch.stack(labels)

    def _view(self, at: _Place) -> tuple[Tensor, Tensor]:
        image_CHW, label_HW = self.dataset.read(at.image)
        return train_transform(image_CHW, label_HW, self.data, _generator(_VIEW, self.seed, at.epoch, at.place))


@dataclass(frozen=True)
class _ValImages:
    """Makes a batch of one image, as it is scored."""

    dataset: SegmentationDataset
    data: DataSettings

    def __call__(self, index: int) -> Batch:
        image_CHW, label_HW = eval_transform(*self.dataset.read(index), self.data)
        return image_CHW[None], label_HW[None]


def _generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
