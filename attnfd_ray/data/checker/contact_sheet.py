"""Pictures of what the network sees in its first epoch, and of examples of a class."""

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

_TILE_PIXELS = 320
_EXAMPLE_PIXELS = 240


def contact_sheet(settings: ExperimentSettings, *, count: int) -> tuple[bytes, int]:
    """Return a PNG of the first `count` views of a run's first epoch, or of all, and their number.

    The views are the run's own: same seed, order and augmentation. DataError if a file cannot be
    read.
    """
    data = settings.data.model_copy(update={"cache": "none"})
    dataset = open_dataset(data, split=data.train_split)
    loader = TrainLoader(
        dataset,
        data,
        readers=ReaderPool([dataset]),
        global_batch_size=settings.train.batch_size,
        seed=settings.train.seed,
        steps_per_epoch=settings.train.steps_per_epoch,
    )
    batches = loader.epoch(1)
    views = chain.from_iterable(zip(images, labels, strict=True) for images, labels in batches)
    tiles = []
    for image_3HW, label_HW in islice(views, count):
        label = label_HW.numpy().astype(np.uint8)
        picture_HWC = overlay(denormalised(image_3HW), label, dataset.palette)
        tiles.append(fitted(picture_HWC, _TILE_PIXELS))
    return encoded(tiled(tiles, dataset.class_names, dataset.palette), "PNG"), len(tiles)


def example(dataset: SegmentationDataset, index: int) -> bytes:
    """Return a small JPEG of an image under its mask. DataError if a file cannot be read."""
    image_CHW, label_HW = dataset.read(index)
    image_HWC = image_CHW.permute(1, 2, 0).numpy()
    picture_HWC = overlay(image_HWC, label_HW.numpy(), dataset.palette)
    return encoded(fitted(picture_HWC, _EXAMPLE_PIXELS), "JPEG")


def denormalised(image_3HW: Tensor) -> Bytes:
    """Return the image_HWC (RGB bytes) from which `transforms.normalised` makes the given image."""
    mean_311 = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std_311 = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    bytes_3HW = ((image_3HW * std_311 + mean_311) * 255).round().clamp(0, 255).byte()
    image_HWC: Bytes = bytes_3HW.permute(1, 2, 0).numpy()
    return image_HWC
