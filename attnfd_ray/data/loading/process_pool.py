"""Processes that load items in the order of the requests, ahead of their use.

`ProcessPool` serves training runs. `open_pool` wraps it for commands that read many files.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from attnfd_ray.errors import AttnFDError, RunFailed

Request = TypeVar("Request")
Item = TypeVar("Item")

TIMEOUT_S = 120.0
"""How long to wait for one item.

From a thread other than the main one, a killed process is noticed only after this time. It is
shorter than the default of `train.step_patience_s`, which would end the waiting step first, without
a known reason. It is longer than an item takes over a slow network.
"""
BATCHES_AHEAD = 2
"""How many items each process loads before they are requested."""

_MAX_PROCESSES = 16
_FILES_PER_PROCESS = 32
"""Files that take about as long to read as a process takes to start."""


class ProcessPool(Generic[Request, Item]):
    """Calls `load` on requests, in order.

    With `num_processes` above 0 that is done in other processes, which stay until `close`. `load`
    must depend on the request alone. It is pickled where processes are spawned.
    """

    def __init__(
        self,
        load: Callable[[Request], Item],
        num_processes: int,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._load = load
        self._num_processes = num_processes
        self._timeout_s = timeout_s
        self._requests: list[Request] = []
        self._loader: DataLoader[Any] | None = None
        self._running: Generator[Item] | None = None

    def map(self, requests: Sequence[Request]) -> Iterator[Item]:
        """Yield load(request) of each, in order. Items left over from an earlier call are dropped.

        An AttnFDError arrives as `load` raised it. RunFailed if a process dies or stops answering.
        """
        if not self._num_processes:
            return map(self._load, requests)
        self._stop_running()
        self._requests[:] = requests
        self._running = self._run()
        return self._running

    def close(self) -> None:
        """End the processes; the next call of `map` starts new ones."""
        self._stop_running()
        self._loader = None  # without a reference, a DataLoader ends its processes

    def _stop_running(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def _run(self) -> Generator[Item]:
        self._loader = self._loader or self._start()
        try:
            for item in self._loader:
                if isinstance(item, AttnFDError):
                    raise item
                yield item
        except Exception as error:  # torch has no error of its own for a dead process
            traceback.clear_frames(error.__traceback__)  # its frames would outlive close()
            if not _is_dead_process(error):
                raise
            self._loader = None
            reason = next(iter(str(error).splitlines()), "its pipe is closed").rstrip(".")
            raise RunFailed(
                f"data.loader_workers {self._num_processes}: a loading process stopped answering "
                f"({reason}); needed are memory and, in /dev/shm, shared memory for all of them: "
                "set fewer, or 0 to load in the training process"
            ) from None

    def _start(self) -> DataLoader[Any]:
        return DataLoader(
            _LoadDataset(self._load),
            batch_size=None,
            sampler=self._requests,  # read again at each pass
            num_workers=self._num_processes,
            persistent_workers=True,
            prefetch_factor=BATCHES_AHEAD,
            timeout=self._timeout_s,
            generator=torch.Generator(),  # otherwise each pass draws from the global generator
        )


def pool_size(num_files: int) -> int:
    """Return how many processes are worth starting for that many files; 0 for few files.

    There are never more than processors.
    """
    num_processors = len(os.sched_getaffinity(0))
    return min(num_processors, _MAX_PROCESSES, num_files // _FILES_PER_PROCESS)


@contextmanager
def open_pool(
    load: Callable[[Request], Item], num_processes: int
) -> Iterator[ProcessPool[Request, Item]]:
    """Yield a pool whose processes are running and end with the block.

    With `num_processes` 0, `load` is called in this process. Ctrl-C ends the processes silently.
    RunFailed if one of them dies.
    """
    if num_processes:
        load = _CommandLoad(load)
    pool = ProcessPool(load, num_processes)
    try:
        with _interrupts_blocked():
            list(pool.map(()))  # starts the processes
        yield pool
    except RuntimeError as error:
        # DataLoader's signal handler raises this while the block is busy elsewhere; a death that
        # `map` notices is a RunFailed already.
        if not str(error).startswith("DataLoader worker"):
            raise
        raise RunFailed(next(iter(str(error).splitlines()))) from None
    finally:
        pool.close()


def _is_dead_process(error: Exception) -> bool:
    """Return whether DataLoader, or a broken pipe, reports a process that died or hangs.

    A process killed while it hands over an item is reported only by the broken pipe. An error of
    `load` starts with "Caught".
    """
    is_report = isinstance(error, RuntimeError | EOFError | ConnectionError)
    return is_report and not str(error).startswith("Caught ")


@dataclass(frozen=True)
class _LoadDataset(Dataset[Any]):
    """The work of one process. Our errors travel as items, as DataLoader would rewrite them."""

    load: Callable[[Any], Any]

    def __getitem__(self, request: Any) -> Any:
        try:
            return self.load(request)
        except AttnFDError as error:
            return error


@dataclass(frozen=True)
class _CommandLoad(Generic[Request, Item]):
    """Calls `load` in a process that dies silently, of Ctrl-C or of a fatal signal."""

    load: Callable[[Request], Item]

    def __call__(self, request: Request) -> Item:
        # torch's handlers would print a line; the command reports the death itself.
        for fatal in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE):
            signal.signal(fatal, signal.SIG_DFL)
        # DataLoader would report any exit code but 0 as a death.
        signal.signal(signal.SIGINT, lambda *_: os._exit(0))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return self.load(request)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Delay Ctrl-C until the block is done; in processes started by it, until their first item."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
