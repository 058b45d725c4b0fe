"""A crew of processes for a command that reads many files: as many as it is worth, and gone when
the command ends.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from attnfd_ray.data.loading.ordered_jobs import LoadingProcesses
from attnfd_ray.errors import RunFailed

Request = TypeVar("Request")
Item = TypeVar("Item")

_MOST_PROCESSES = 16
_WORTH_A_PROCESS = 32
"""Files that take about as long to read as a process to start."""


def crew_size(num_files: int) -> int:
    """Return how many processes that many files are worth, no more than there are processors; 0 for
    few files.
    """
    return min(len(os.sched_getaffinity(0)), _MOST_PROCESSES, num_files // _WORTH_A_PROCESS)


@contextmanager
def crew(load: Callable[[Request], Item], size: int) -> Iterator[LoadingProcesses[Request, Item]]:
    """Yield `size` processes that are running and end with the block; with size 0, what loads in
    this one.

    Ctrl-C ends the processes too, without a word. RunFailed where one of them dies.
    """
    processes = LoadingProcesses(_Member(load) if size else load, size)
    try:
        with _interrupts_held():
            list(processes.map(()))  # nothing to do, but it starts them
        yield processes
    except RuntimeError as error:  # raised by a signal while the block is at work, and not `map`, which tells it itself
        if not str(error).startswith("DataLoader worker"):
            raise
        raise RunFailed(next(iter(str(error).splitlines()))) from None
    finally:
        processes.close()


@dataclass(frozen=True)
class _Member(Generic[Request, Item]):
    """What a process of the crew works on, whatever it is at when Ctrl-C comes."""

    load: Callable[[Request], Item]

    def __call__(self, request: Request) -> Item:
        for fatal in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE):
            signal.signal(
                fatal, signal.SIG_DFL
            )  # torch's would print a line: whoever asked for the files tells it
        signal.signal(
            signal.SIGINT, lambda *_: os._exit(0)
        )  # any other code would be told as a death
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return self.load(request)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait until the block is done; in processes started by it, until they work."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
