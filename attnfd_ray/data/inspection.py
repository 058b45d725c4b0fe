"""Reads many samples, several at a time, and keeps of each what can be counted and compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from attnfd_ray.config.values import IGNORED
from attnfd_ray.data.dataset import SegmentationDataset
from attnfd_ray.data.processes import LoadingProcesses
from attnfd_ray.errors import DataError, RunFailed

_MOST_PROCESSES = 16
_WORTH_A_PROCESS = 32
"""Samples that take about as long to read as a process to start."""

OnRead = Callable[[int, int], None]


class SampleAt(NamedTuple):
    """A sample: the number of its dataset among several, and its index in that."""

    dataset: int
    sample: int


@dataclass(frozen=True)
class SampleFacts:
    """What is kept of a sample: its pixels of each class, those that do not count, and two hashes of its image.

    Images with the same `content` are equal in every pixel; `looks` has 64 bits, few of which differ between images
    that look almost alike.
    """

    at: SampleAt
    pixels: tuple[int, ...]
    num_ignored: int
    content: bytes
    looks: int


def inspect(
    datasets: Sequence[SegmentationDataset], samples: Sequence[SampleAt], on_read: OnRead
) -> tuple[list[SampleFacts], list[str]]:
    """Return the facts of all samples that can be read, in order, and what is wrong with the others, a line each.

    Many samples are read by several processes, no more than there are processors. `on_read` hears how many are done,
    of how many. RunFailed where a process dies.
    """
    num_processes = min(len(os.sched_getaffinity(0)), _MOST_PROCESSES, len(samples) // _WORTH_A_PROCESS)
    reading = LoadingProcesses(_Inspection(tuple(datasets)), num_processes)
    facts: list[SampleFacts] = []
    problems: list[str] = []
    try:
        for done, found in enumerate(reading.map(samples), start=1):
            if isinstance(found, SampleFacts):
                facts.append(found)
            else:
                problems += found
            on_read(done, len(samples))
    except RunFailed as error:  # speaks of a training run's processes
        raise RunFailed(
            f"{datasets[0].root}: one of {num_processes} reading processes died, near sample {len(facts)} of "
            f"{len(samples)} ({error}); needed is memory for all of them: free some, or allow fewer cores (taskset)"
        ) from None
    finally:
        reading.close()
    return facts, problems


@dataclass(frozen=True)
class _Inspection:
    """Reads one sample: its facts, or what is wrong with it."""

    datasets: tuple[SegmentationDataset, ...]

    def __call__(self, at: SampleAt) -> SampleFacts | list[str]:
        dataset = self.datasets[at.dataset]
        try:
            image_CHW, label_HW = dataset.read(at.sample)
        except DataError as error:
            return error.problems
        counts = np.bincount(label_HW.numpy().ravel(), minlength=256)
        pixels = tuple(counts[: dataset.num_classes].tolist())
        return SampleFacts(at, pixels, int(counts[IGNORED]), _content_hash(image_CHW), difference_hash(image_CHW))


def _content_hash(image_CHW: Tensor) -> bytes:
    size = repr(tuple(image_CHW.shape)).encode()
    return hashlib.blake2b(image_CHW.numpy().tobytes(), digest_size=16, key=size).digest()


def difference_hash(image_CHW: Tensor) -> int:
    """Return 64 bits, one for each of 8x8 places: whether an RGB image gets brighter there from left to right."""
    grey = Image.fromarray(image_CHW.permute(1, 2, 0).numpy()).convert("L").resize((9, 8), Image.Resampling.BOX)
    cells_8x9 = np.asarray(grey)
    return int.from_bytes(np.packbits(cells_8x9[:, 1:] > cells_8x9[:, :-1]).tobytes(), "big")
