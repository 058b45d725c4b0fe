"""Reads many samples, several at a time, and keeps countable and comparable facts of each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.datasets.base import SegmentationDataset
from attnfd_ray.data.loading.process_pool import open_pool, pool_size
from attnfd_ray.errors import DataError, RunFailed

_CONTENT_BYTES = 16

OnRead = Callable[[int, int], None]
"""Called with the number of samples done, and their total."""

Facts = NDArray[np.void]
"""The facts of samples of one dataset, one row each: see `no_facts`."""


class SampleAt(NamedTuple):
    """A sample: the number of its dataset in a list of datasets, and its index in that."""

    dataset: int
    sample: int


def no_facts(num_classes: int, num_samples: int = 0) -> Facts:
    """Return empty rows, a fraction of a kilobyte each: COCO has 118 287 images.

    `sample` is the index in the dataset, `pixels` the pixels of each class, `num_ignored` those
    that do not count. Images with the same `content` are equal in every pixel. `looks` has 64 bits,
    few of which differ between similar images.
    """
    columns = [
        ("sample", np.int64),
        ("pixels", np.uint32, (num_classes,)),
        ("num_ignored", np.uint32),
        ("content", np.void, _CONTENT_BYTES),
        ("looks", np.uint64),
    ]
    return np.zeros(num_samples, np.dtype(columns))


def inspect(
    datasets: Sequence[SegmentationDataset],
    samples: Sequence[SampleAt],
    on_read: OnRead,
) -> tuple[list[Facts], list[str]]:
    """Return the facts of each dataset's readable samples, in order, and the errors of others.

    Many samples are read by several processes, at most one per processor. RunFailed if one dies.
    """
    num_samples = Counter(at.dataset for at in samples)
    facts = [
        no_facts(dataset.num_classes, num_samples[number])
        for number, dataset in enumerate(datasets)
    ]
    num_filled = [0] * len(facts)
    num_processes = pool_size(len(samples))
    num_done = 0
    problems: list[str] = []
    try:
        with open_pool(_Inspection(tuple(datasets)), num_processes) as pool:
            for found in pool.map(samples):
                num_done += 1
                if isinstance(found, _Row):
                    facts[found.dataset][num_filled[found.dataset]] = found.values
                    num_filled[found.dataset] += 1
                else:
                    problems += found
                on_read(num_done, len(samples))
    except RunFailed as error:  # its text is about the processes of a training run
        raise RunFailed(
            f"{datasets[0].root}: one of {num_processes} reading processes died, near sample "
            f"{num_done} of {len(samples)} ({error}); needed is memory for all of them: free "
            "some, or allow fewer cores (taskset)"
        ) from None
    return [rows[:count] for rows, count in zip(facts, num_filled, strict=True)], problems


@dataclass(frozen=True)
class _Row:
    """The facts of one sample of a dataset, as a process returns them."""

    dataset: int
    values: tuple[Any, ...]


@dataclass(frozen=True)
class _Inspection:
    """Reads one sample: its facts, or its errors."""

    datasets: tuple[SegmentationDataset, ...]

    def __call__(self, at: SampleAt) -> _Row | list[str]:
        dataset = self.datasets[at.dataset]
        try:
            image_CHW, label_HW = dataset.read(at.sample)
        except DataError as error:
            return error.problems
        counts = np.bincount(label_HW.numpy().ravel(), minlength=256).astype(np.uint32)
        values = (
            at.sample,
            counts[: dataset.num_classes],
            counts[IGNORED],
            _content_hash(image_CHW),
            difference_hash(image_CHW),
        )
        return _Row(at.dataset, values)


def _content_hash(image_CHW: Tensor) -> bytes:
    size = repr(tuple(image_CHW.shape)).encode()
    pixels = image_CHW.numpy().tobytes()
    return hashlib.blake2b(pixels, digest_size=_CONTENT_BYTES, key=size).digest()


def difference_hash(image_CHW: Tensor) -> int:
    """Return 64 bits, one for each of 8x8 cells of an RGB image.

    A bit is set where the image gets brighter from left to right.
    """
    grey = Image.fromarray(image_CHW.permute(1, 2, 0).numpy()).convert("L")
    cells_8x9 = np.asarray(grey.resize((9, 8), Image.Resampling.BOX))
    brighter_8x8 = cells_8x9[:, 1:] > cells_8x9[:, :-1]
    return int.from_bytes(np.packbits(brighter_8x8).tobytes(), "big")
