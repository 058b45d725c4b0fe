"""Ctrl-C while jobs run: running work registers a stop function, and Ctrl-C calls it. No ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_stop_functions: list[Callable[[], None]] = []
_resumable = threading.Event()


@contextmanager
def stoppable(stop: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C call `stop`, in a thread of its own, instead of raising KeyboardInterrupt."""
    _stop_functions.append(stop)
    try:
        yield
    finally:
        _stop_functions.remove(stop)


def set_resumable() -> None:
    """Note that the command has started something that the same command resumes."""
    _resumable.set()


def is_resumable() -> bool:
    """Return whether `set_resumable` was called."""
    return _resumable.is_set()


def request_stop() -> bool:
    """Call the stop functions, and return whether there are any.

    Never blocks, so a signal handler may call it.
    """
    for stop in _stop_functions:
        threading.Thread(target=stop, daemon=True).start()
    return bool(_stop_functions)
