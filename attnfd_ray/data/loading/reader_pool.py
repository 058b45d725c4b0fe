"""Reads the images of some datasets, in this process or in processes kept from run to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from attnfd_ray.data.datasets.base import SegmentationDataset
from attnfd_ray.data.loading.process_pool import BATCHES_AHEAD, ProcessPool
from attnfd_ray.data.storage.free_space import MIB, SHARED_MEMORY, free_bytes
from attnfd_ray.errors import CapacityError

Item = TypeVar("Item")
LoadTask = Callable[[SegmentationDataset], Item]


class ReaderPool:
    """Runs tasks on datasets, in order.

    With `num_processes` above 0 they run ahead of time, in processes kept until `close`. The
    datasets are given once, so that a task sent to a process is small.
    """

    def __init__(
        self,
        datasets: Sequence[SegmentationDataset],
        num_processes: int = 0,
    ) -> None:
        self.datasets = tuple(datasets)
        self.num_processes = num_processes
        self._pool: ProcessPool[Any, Any] = ProcessPool(_TaskRunner(self.datasets), num_processes)

    def map(
        self,
        dataset: SegmentationDataset,
        tasks: Sequence[LoadTask[Item]],
    ) -> Iterator[Item]:
        """Yield task(dataset) of each, in order. Items left over from an earlier call are dropped.

        DataError if a file cannot be read, RunFailed if a process dies.
        """
        number = next(number for number, known in enumerate(self.datasets) if known is dataset)
        return self._pool.map([(number, task) for task in tasks])

    def check_shared_memory(self, batch_bytes: int) -> None:
        """Raise CapacityError if /dev/shm cannot hold the batches made ahead, beside the caches."""
        if not self.num_processes:
            return
        needed = (BATCHES_AHEAD * self.num_processes + 1) * batch_bytes
        for_caches = max((dataset.memory_left_bytes() for dataset in self.datasets), default=0)
        free = free_bytes(SHARED_MEMORY) - for_caches
        if needed > free:
            raise CapacityError(
                f"data.loader_workers {self.num_processes}: {SHARED_MEMORY} has "
                f"{max(0, free) / MIB:.0f} MiB free and batches made ahead need "
                f"{needed / MIB:.0f}; set fewer, 0 to load in the training process, a smaller "
                "train.batch_size, or give a container more of it (docker run --shm-size)"
            )

    def close(self) -> None:
        """End the processes; the next call of `map` starts new ones."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class _TaskRunner:
    """Runs a task on the dataset with a given number."""

    datasets: tuple[SegmentationDataset, ...]

    def __call__(self, request: tuple[int, LoadTask[Item]]) -> Item:
        number, task = request
        return task(self.datasets[number])
