"""Batches for one of the workers that train together; which ones, depends on seed and epoch alone.

The global batch, its order and the random views in it are the same for any number of workers and
loading processes, and for a run that was interrupted: a view's generator is seeded by (seed, epoch,
place in the epoch).
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

# What a stream of random numbers is for. Comes first in its seed: NumPy takes [1, 2] and [1, 2, 0]
# for the same.
_ORDER, _VIEW = 1, 2


class TrainLoader:
    """The batches of one worker, epoch after epoch, made by `readers` that know the dataset."""

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
        assert global_batch_size % world_size == 0, (
            "every worker takes an equal part of the global batch"
        )
        self.steps = steps_in_epoch(len(dataset), global_batch_size, steps_per_epoch)
        self._dataset, self._data, self._readers = dataset, data, readers
        self._seed, self._rank, self._device = seed, rank, device
        self._global_batch_size, self._batch_size = (
            global_batch_size,
            global_batch_size // world_size,
        )
        readers.check_shared_memory(
            batch_bytes=self._batch_size * _CHANNELS * data.crop[0] * data.crop[1]
        )

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield `steps` batches: images_N3HW (float32, normalised) and labels_NHW (int64), N this
        worker's part.

        A split smaller than what is asked for starts over. DataError where a file cannot be read.
        """
        order = _generator(_ORDER, self._seed, epoch).permutation(len(self._dataset))
        order = np.resize(order, self.steps * self._global_batch_size)
        places = np.arange(len(order)).reshape(self.steps, -1)
        mine = places[:, self._rank * self._batch_size :][:, : self._batch_size]
        batches = [
            _TrainBatch(
                self._data, self._seed, tuple(_Place(epoch, int(at), int(order[at])) for at in step)
            )
            for step in mine
        ]
        return (
            on_device(batch, self._device) for batch in self._readers.map(self._dataset, batches)
        )


def val_batches(
    dataset: SegmentationDataset,
    data: DataSettings,
    *,
    readers: ReaderPool,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device = CPU,
) -> Iterator[Batch]:
    """Yield image_13hw (float32, normalised) and label_1HW (int64) of every world_size-th image of
    the split.

    `data.evaluation` says how large they are. Over all ranks each of the first `data.val_limit`
    images comes once. DataError where a file cannot be read.
    """
    limit = min(len(dataset), data.val_limit or len(dataset))
    images = [_ValImage(data, index) for index in range(rank, limit, world_size)]
    return (on_device(batch, device) for batch in readers.map(dataset, images))


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch of bytes as networks and losses take it; a quarter of the floats travels to
    the device.
    """
    images_N3HW, labels_NHW = (field.to(device, non_blocking=True) for field in batch)
    return normalised(images_N3HW), labels_NHW.long()


def steps_in_epoch(
    num_images: int, global_batch_size: int, steps_per_epoch: int | None = None
) -> int:
    """Return the optimiser steps of an epoch: as set, else the whole global batches in the split,
    at least one.
    """
    return steps_per_epoch or max(1, num_images // global_batch_size)


_CHANNELS = 4
"""Bytes a pixel: red, green, blue and the label."""


class _Place(NamedTuple):
    """Which image is seen where in which epoch."""

    epoch: int
    place: int
    image: int


@dataclass(frozen=True)
class _TrainBatch:
    """Makes one worker's part of a global batch."""

    data: DataSettings
    seed: int
    places: tuple[_Place, ...]

    def __call__(self, dataset: SegmentationDataset) -> Batch:
        images, labels = zip(*(self._view(dataset, at) for at in self.places), strict=True)
        return torch.stack(images), torch.stack(labels)

    def _view(self, dataset: SegmentationDataset, at: _Place) -> tuple[Tensor, Tensor]:
        image_CHW, label_HW = dataset.read(at.image)
        return train_transform(
            image_CHW, label_HW, self.data, _generator(_VIEW, self.seed, at.epoch, at.place)
        )


@dataclass(frozen=True)
class _ValImage:
    """Makes a batch of one image, as it is scored."""

    data: DataSettings
    index: int

    def __call__(self, dataset: SegmentationDataset) -> Batch:
        image_CHW, label_HW = eval_transform(*dataset.read(self.index), self.data)
        return image_CHW[None], label_HW[None]


def _generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
