"""Does a list of loading jobs in order, in this process or ahead of time in others."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from attnfd_ray.errors import AttnFDError, RunFailed

Request = TypeVar("Request")
Item = TypeVar("Item")

TIMEOUT_S = 120.0
"""How long to wait for one item. From a thread that is not the main one, a killed process is noticed only then.

Less than the default of `train.step_patience_s`, or the step that waits would be ended first, for no reason it could
give; more than an item takes that comes over a slow network.
"""


BATCHES_AHEAD = 2
"""What each process makes before it is asked for."""


class LoadingProcesses(Generic[Request, Item]):
    """Calls `load` on requests; with `num_processes` above 0 in other processes, kept from call to
    call until closed.

    `load` must not depend on anything but the request, and is pickled where processes are spawned.
    """

    def __init__(
        self, load: Callable[[Request], Item], num_processes: int, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._load = load
        self._num_processes = num_processes
        self._timeout_s = timeout_s
        self._requests: list[Request] = []
        self._loader: DataLoader[Any] | None = None
        self._running: Generator[Item] | None = None

    def map(self, requests: Sequence[Request]) -> Iterator[Item]:
        """Yield load(request) of each, in order; whatever was still to come from an earlier call is
        dropped.

        An error of ours arrives as `load` raised it; RunFailed where a process dies or is not heard
        of.
        """
        if not self._num_processes:
            return map(self._load, requests)
        self._end_running()
        self._requests[:] = requests
        self._running = self._run()
        return self._running

    def close(self) -> None:
        """End the processes; the next call of `map` starts new ones."""
        self._end_running()
        self._loader = (
            None  # the last reference: DataLoader ends its processes when nobody needs them
        )

    def _end_running(self) -> None:
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
        except (
            Exception
        ) as error:  # all are raised again; in our words where not `load` is at fault
            traceback.clear_frames(error.__traceback__)  # which hold the processes past close()
            # one killed while it hands over a batch is told by the broken pipe, and not by
            # DataLoader
            ended = isinstance(error, RuntimeError | EOFError | ConnectionError)
            if not ended or str(error).startswith("Caught "):
                raise  # came from `load`
            self._loader = None
            reason = next(iter(str(error).splitlines()), "its pipe is closed").rstrip(".")
            raise RunFailed(
                f"data.loader_workers {self._num_processes}: a loading process stopped answering "
                f"({reason}); needed "
                "are memory and, in /dev/shm, shared memory for all of them: set fewer, or 0 to "
                "load in the training "
                "process"
            ) from None

    def _start(self) -> DataLoader[Any]:
        return DataLoader(
            _Jobs(self._load),
            batch_size=None,
            sampler=self._requests,  # read anew at each pass
            num_workers=self._num_processes,
            persistent_workers=True,
            prefetch_factor=BATCHES_AHEAD,
            timeout=self._timeout_s,
            generator=torch.Generator(),  # else each pass would take a number from the global one
        )


@dataclass(frozen=True)
class _Jobs(Dataset[Any]):
    """What a loading process works on. Our errors travel as items: raised there, DataLoader would
    rewrite them.
    """

    load: Callable[[Any], Any]

    def __getitem__(self, request: Any) -> Any:
        try:
            return self.load(request)
        except AttnFDError as error:
            return error
