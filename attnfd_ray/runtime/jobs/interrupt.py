"""Ctrl-C while jobs run: whoever has work worth ending well says so, and the command line asks it
to. No ray.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_stoppers: list[Callable[[], None]] = []
_begun = threading.Event()


@contextmanager
def stoppable(stop: Callable[[], None]) -> Iterator[None]:
    """While this is open, an interruption calls `stop`, in a thread of its own, and nothing is
    raised.
    """
    _stoppers.append(stop)
    try:
        yield
    finally:
        _stoppers.remove(stop)


def begin() -> None:
    """Note that the command has begun something that it goes on with when started again."""
    _begun.set()


def has_begun() -> bool:
    """Return whether it has."""
    return _begun.is_set()


def ask_to_stop() -> bool:
    """Ask whoever is at work to stop; return whether there is anybody. Fit for a signal handler: it
    never waits.
    """
    for stop in _stoppers:
        threading.Thread(target=stop, daemon=True).start()
    return bool(_stoppers)
