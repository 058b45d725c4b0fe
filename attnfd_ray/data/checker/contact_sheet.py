"""What the network will see in its first epoch, and what examples of a class look like, as pictures
for people.
"""

from __future__ import annotations

from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.checker.overlays import encoded, fitted, overlay, tiled
from attnfd_ray.data.datasets.base import SegmentationDataset, open_dataset
from attnfd_ray.data.files import Bytes
from attnfd_ray.data.loading.loader import TrainLoader
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.data.loading.transforms import IMAGENET_MEAN, IMAGENET_STD

_TILE_PIXELS, _EXAMPLE_PIXELS = 320, 240


def contact_sheet(settings: ExperimentSettings, *, count: int) -> tuple[bytes, int]:
    """Return a PNG of the first `count` views of a run's first epoch, or all of them, and how many
    these are.

    They are the run's own: same seed, same order, same augmentation. DataError where a file cannot
    be read.
    """
    data = settings.data.model_copy(update={"cache": "none"})
    dataset = open_dataset(data, split=data.train_split)
    train, tiles = settings.train, []
    loader = TrainLoader(
        dataset,
        data,
        readers=ReaderPool([dataset]),
        global_batch_size=train.batch_size,
        seed=train.seed,
        steps_per_epoch=train.steps_per_epoch,
    )
    views = chain.from_iterable(
        zip(images, labels, strict=True) for images, labels in loader.epoch(1)
    )
    for image_3HW, label_HW in islice(views, count):
        picture_HWC = overlay(
            denormalised(image_3HW), label_HW.numpy().astype(np.uint8), dataset.palette
        )
        tiles.append(fitted(picture_HWC, _TILE_PIXELS))
    return encoded(tiled(tiles, dataset.class_names, dataset.palette), "PNG"), len(tiles)


def example(dataset: SegmentationDataset, index: int) -> bytes:
    """Return a small JPEG of an image under its mask. DataError where a file cannot be read."""
    image_CHW, label_HW = dataset.read(index)
    picture_HWC = overlay(image_CHW.permute(1, 2, 0).numpy(), label_HW.numpy(), dataset.palette)
    return encoded(fitted(picture_HWC, _EXAMPLE_PIXELS), "JPEG")


def denormalised(image_3HW: Tensor) -> Bytes:
    """Return the image_HWC (RGB bytes) that `transforms.normalised` makes this of."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    image: Bytes = (
        ((image_3HW * std + mean) * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    )
    return image
