"""What reads the images of some datasets, here or in processes of its own that stay from run to
run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from attnfd_ray.data.datasets.base import SegmentationDataset
from attnfd_ray.data.loading.ordered_jobs import BATCHES_AHEAD, LoadingProcesses
from attnfd_ray.data.storage.free_space import MIB, SHARED_MEMORY, free_bytes
from attnfd_ray.errors import CapacityError

Item = TypeVar("Item")
LoadTask = Callable[[SegmentationDataset], Item]


class ReaderPool:
    """Does jobs on datasets, in order; with `num_processes` above 0 ahead of time, in processes
    kept until closed.

    Which datasets there are is said once, so that a job on its way to a process is small.
    """

    def __init__(self, datasets: Sequence[SegmentationDataset], num_processes: int = 0) -> None:
        self.datasets, self.num_processes = tuple(datasets), num_processes
        self._processes: LoadingProcesses[Any, Any] = LoadingProcesses(
            _Jobs(self.datasets), num_processes
        )

    def map(self, dataset: SegmentationDataset, jobs: Sequence[LoadTask[Item]]) -> Iterator[Item]:
        """Yield job(dataset) of each, in order; whatever was still to come from an earlier call is
        dropped.

        DataError where a file cannot be read, RunFailed where a process dies.
        """
        number = next(number for number, known in enumerate(self.datasets) if known is dataset)
        return self._processes.map([(number, job) for job in jobs])

    def check_shared_memory(self, batch_bytes: int) -> None:
        """Raise CapacityError if /dev/shm cannot hold the batches that the processes make ahead,
        beside a cache.
        """
        needed = (BATCHES_AHEAD * self.num_processes + 1) * batch_bytes
        free = free_bytes(SHARED_MEMORY) - max(
            (dataset.memory_left_bytes() for dataset in self.datasets), default=0
        )
        if self.num_processes and needed > free:
            raise CapacityError(
                f"data.loader_workers {self.num_processes}: {SHARED_MEMORY} has "
                f"{max(0, free) / MIB:.0f} MiB free and "
                f"batches made ahead need {needed / MIB:.0f}; set fewer, 0 to load in the "
                "training process, a smaller "
                f"train.batch_size, or give a container more of it (docker run --shm-size)"
            )

    def close(self) -> None:
        """End the processes; the next call of `map` starts new ones."""
        self._processes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class _Jobs:
    """Does a job on the dataset it names by number."""

    datasets: tuple[SegmentationDataset, ...]

    def __call__(self, request: tuple[int, LoadTask[Item]]) -> Item:
        number, job = request
        return job(self.datasets[number])
