"""Reads many samples, several at a time, and keeps of each what can be counted and compared."""

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
from attnfd_ray.data.loading.process_pool import crew, crew_size
from attnfd_ray.errors import DataError, RunFailed

_CONTENT_BYTES = 16

OnRead = Callable[[int, int], None]

Facts = NDArray[np.void]
"""The facts of many samples of one dataset, a row each: see `no_facts`."""


class SampleAt(NamedTuple):
    """A sample: the number of its dataset among several, and its index in that."""

    dataset: int
    sample: int


def no_facts(num_classes: int, num_samples: int = 0) -> Facts:
    """Return rows yet to be filled, a fraction of a kilobyte each: COCO has 118 287 images.

    `sample` is the index in the dataset, `pixels` those of each class, `num_ignored` those that do
    not count. Images with the same `content` are equal in every pixel; `looks` has 64 bits, few of
    which differ between images that look almost alike.
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
    datasets: Sequence[SegmentationDataset], samples: Sequence[SampleAt], on_read: OnRead
) -> tuple[list[Facts], list[str]]:
    """Return the facts of each dataset's samples that can be read, in order, and what is wrong with
    others, in lines.

    Many samples are read by several processes, no more than there are processors. `on_read` hears
    how many are done, of how many. RunFailed where a process dies.
    """
    asked = Counter(at.dataset for at in samples)
    facts = [
        no_facts(dataset.num_classes, asked[number]) for number, dataset in enumerate(datasets)
    ]
    filled = [0] * len(facts)
    num_processes, done = crew_size(len(samples)), 0
    problems: list[str] = []
    try:
        with crew(_Inspection(tuple(datasets)), num_processes) as reading:
            for done, found in enumerate(reading.map(samples), start=1):
                if isinstance(found, _Row):
                    facts[found.dataset][filled[found.dataset]] = found.values
                    filled[found.dataset] += 1
                else:
                    problems += found
                on_read(done, len(samples))
    except RunFailed as error:  # speaks of a training run's processes
        raise RunFailed(
            f"{datasets[0].root}: one of {num_processes} reading processes died, near sample "
            f"{done} of "
            f"{len(samples)} ({error}); needed is memory for all of them: free some, or allow "
            "fewer cores (taskset)"
        ) from None
    return [rows[:count] for rows, count in zip(facts, filled, strict=True)], problems


@dataclass(frozen=True)
class _Row:
    """The facts of one sample of a dataset, on their way from a process."""

    dataset: int
    values: tuple[Any, ...]


@dataclass(frozen=True)
class _Inspection:
    """Reads one sample: its facts, or what is wrong with it."""

    datasets: tuple[SegmentationDataset, ...]

    def __call__(self, at: SampleAt) -> _Row | list[str]:
        dataset = self.datasets[at.dataset]
        try:
            image_CHW, label_HW = dataset.read(at.sample)
        except DataError as error:
            return error.problems
        counts = np.bincount(label_HW.numpy().ravel(), minlength=256).astype(np.uint32)
        pixels = counts[: dataset.num_classes]
        looks = difference_hash(image_CHW)
        return _Row(
            at.dataset, (at.sample, pixels, counts[IGNORED], _content_hash(image_CHW), looks)
        )


def _content_hash(image_CHW: Tensor) -> bytes:
    size = repr(tuple(image_CHW.shape)).encode()
    return hashlib.blake2b(
        image_CHW.numpy().tobytes(), digest_size=_CONTENT_BYTES, key=size
    ).digest()


def difference_hash(image_CHW: Tensor) -> int:
    """Return 64 bits, one for each of 8x8 places: whether an RGB image gets brighter there from
    left to right.
    """
    grey = (
        Image.fromarray(image_CHW.permute(1, 2, 0).numpy())
        .convert("L")
        .resize((9, 8), Image.Resampling.BOX)
    )
    cells_8x9 = np.asarray(grey)
    return int.from_bytes(np.packbits(cells_8x9[:, 1:] > cells_8x9[:, :-1]).tobytes(), "big")
