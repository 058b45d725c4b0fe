"""How Ctrl-C and SIGTERM end a command. Every file on the disk stays complete in any case."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from typing import NoReturn

_RESUMABLE_COMMANDS = ("train", "tune", "confirm")
_CLEANUP_S = 10.0

_received: list[int] = []  # the signals so far


def install_signal_handlers() -> None:
    """Install handlers for Ctrl-C and SIGTERM.

    While trials run, the first Ctrl-C stops after the running epochs; SIGTERM or a second Ctrl-C
    ends in order, within ten seconds. Otherwise the first signal does that. One more signal ends
    the process at once.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _on_signal)
        signal.signal(signal.SIGTERM, _on_signal)


def ended_by_signal() -> int:
    """Return the exit code of a command that a signal ended: 128 + signal, 130 for Ctrl-C."""
    last_signal = [signal.SIGINT, *_received][-1]
    return 128 + last_signal


def resume_hint() -> str:
    """Return what the user can do after an interruption: the command that resumes, if any."""
    from attnfd_ray.runtime.jobs.interrupt import is_resumable

    words = sys.argv[1:]
    if not is_resumable() or not words or words[0] not in _RESUMABLE_COMMANDS:
        return "nothing was started; run the command again"
    again = [word for word in words if word != "--fresh"]
    return f"resume from the last finished epoch: {shlex.join(['attnfd-ray', *again])}"


def exit_process(code: int) -> NoReturn:
    """End the process. Does not wait for a Ray that is still busy: it ends with this process."""
    from attnfd_ray.runtime.cluster.environment import ray_in_use

    if ray_in_use():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _on_signal(number: int, frame: object) -> None:
    """Handle a signal.

    An exception alone is not enough: raised inside a callback of a library, it may be swallowed.
    """
    from attnfd_ray.runtime.jobs.interrupt import request_stop

    _received.append(number)
    if len(_received) == 1 and number == signal.SIGINT and request_stop():
        _write("stopping after the running epochs; Ctrl-C again ends at once")
        return
    for next_signal in (signal.SIGINT, signal.SIGTERM):
        signal.signal(next_signal, lambda *_: _end())
    timer = threading.Timer(_CLEANUP_S, _end)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _end() -> None:
    _write(f"interrupted; {resume_hint()}")
    os._exit(ended_by_signal())


def _write(text: str) -> None:
    """Write a line to stderr from a signal handler, which may have interrupted another write."""
    os.write(2, f"\n{text}\n".encode())
