"""The batches of one worker; which images they show depends on seed and epoch alone.

The global batch, its order and its random views are the same for any number of workers and loading
processes, and for a run that was interrupted. The random generator of a view is seeded by (seed,
epoch, position in the epoch).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.datasets.base import SegmentationDataset
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.data.loading.transforms import eval_transform, normalised, train_transform

Batch = tuple[Tensor, Tensor]
CPU = torch.device("cpu")

# The purpose of a stream of random numbers. It is the first number of the seed, because NumPy
# treats [1, 2] and [1, 2, 0] as the same seed.
_ORDER = 1
_VIEW = 2

_BYTES_PER_PIXEL = 4
"""Red, green, blue and the label."""


class TrainLoader:
    """The training batches of one worker, epoch after epoch, read by `readers`."""

    def __init__(
        self,
        dataset: SegmentationDataset,
        data: DataSettings,
        *,
        readers: ReaderPool,
        global_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        steps_per_epoch: int | None = None,
        device: torch.device = CPU,
    ) -> None:
        assert global_batch_size % world_size == 0, "workers take equal parts of the global batch"
        self.steps = steps_in_epoch(len(dataset), global_batch_size, steps_per_epoch)
        self._dataset = dataset
        self._data = data
        self._readers = readers
        self._seed = seed
        self._rank = rank
        self._device = device
        self._global_batch_size = global_batch_size
        self._batch_size = global_batch_size // world_size
        height, width = data.crop
        readers.check_shared_memory(
            batch_bytes=self._batch_size * _BYTES_PER_PIXEL * height * width
        )

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield `steps` batches: images_N3HW (float32, normalised) and labels_NHW (int64).

        N is this worker's part of the global batch. A split smaller than an epoch starts over.
        DataError if a file cannot be read.
        """
        order = _generator(_ORDER, self._seed, epoch).permutation(len(self._dataset))
        order = np.resize(order, self.steps * self._global_batch_size)
        positions = np.arange(len(order)).reshape(self.steps, -1)
        first = self._rank * self._batch_size
        batches = []
        for step in positions[:, first : first + self._batch_size].tolist():
            views = tuple(_View(epoch, position, int(order[position])) for position in step)
            batches.append(_TrainBatch(self._data, self._seed, views))
        loaded = self._readers.map(self._dataset, batches)
        return (on_device(batch, self._device) for batch in loaded)


def val_batches(
    dataset: SegmentationDataset,
    data: DataSettings,
    *,
    readers: ReaderPool,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device = CPU,
) -> Iterator[Batch]:
    """Yield image_13hw (float32, normalised) and label_1HW (int64), one image a batch.

    This rank takes every world_size-th image. Over all ranks, each of the first `data.val_limit`
    images comes once. `data.evaluation` determines their size. DataError if a file cannot be read.
    """
    limit = min(len(dataset), data.val_limit or len(dataset))
    images = [_ValImage(data, index) for index in range(rank, limit, world_size)]
    return (on_device(batch, device) for batch in readers.map(dataset, images))


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch of bytes on the device, as networks and losses take it.

    It is converted there: bytes are a quarter of the floats to transfer.
    """
    images_N3HW, labels_NHW = (field.to(device, non_blocking=True) for field in batch)
    return normalised(images_N3HW), labels_NHW.long()


def steps_in_epoch(
    num_images: int,
    global_batch_size: int,
    steps_per_epoch: int | None = None,
) -> int:
    """Return the optimiser steps of an epoch.

    That is `steps_per_epoch` if set, else the number of whole global batches, at least one.

    >>> steps_in_epoch(367, 16)
    22
    """
    return steps_per_epoch or max(1, num_images // global_batch_size)


class _View(NamedTuple):
    """An image at a position in an epoch."""

    epoch: int
    position: int
    image: int


@dataclass(frozen=True)
class _TrainBatch:
    """The task that loads one worker's part of a global batch."""

    data: DataSettings
    seed: int
    views: tuple[_View, ...]

    def __call__(self, dataset: SegmentationDataset) -> Batch:
        images, labels = zip(*(self._load(dataset, view) for view in self.views), strict=True)
        return torch.stack(images), torch.stack(labels)

    def _load(
        self,
        dataset: SegmentationDataset,
        view: _View,
    ) -> tuple[Tensor, Tensor]:
        image_CHW, label_HW = dataset.read(view.image)
        rng = _generator(_VIEW, self.seed, view.epoch, view.position)
        return train_transform(image_CHW, label_HW, self.data, rng)


@dataclass(frozen=True)
class _ValImage:
    """The task that loads one image as it is scored."""

    data: DataSettings
    index: int

    def __call__(self, dataset: SegmentationDataset) -> Batch:
        image_CHW, label_HW = eval_transform(*dataset.read(self.index), self.data)
        return image_CHW[None], label_HW[None]


def _generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
