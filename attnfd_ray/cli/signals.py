"""How a command ends before its time: Ctrl-C once, Ctrl-C again, SIGTERM. What is on the disk is
whole in any case.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from typing import NoReturn

_GOES_ON = ("train", "tune", "confirm")  # when started again
_ORDERLY_END_S = 10.0

_signals: list[int] = []  # those heeded so far


def install_signal_handlers() -> None:
    """Heed Ctrl-C, and SIGTERM as its second time.

    The first Ctrl-C lets the epochs that run come to their end, where trials run. Else, and at the
    second one, the command ends in good order, soon in any case; at another one at once.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupted)
        signal.signal(signal.SIGTERM, _interrupted)


def ended_by_signal() -> int:
    """Return the exit code of a command that a signal ended, as shells count: 130 for Ctrl-C."""
    return 128 + (_signals[-1] if _signals else signal.SIGINT)


def resume_hint() -> str:
    """Return what to do after an interruption: the command that goes on, for those that do."""
    from attnfd_ray.runtime.jobs.interrupt import has_begun

    words = sys.argv[1:]
    if has_begun() and words and words[0] in _GOES_ON:
        again = [word for word in words if word != "--fresh"]
        return f"go on from the last finished epoch: {shlex.join(['attnfd-ray', *again])}"
    return "nothing had begun; start it again"


def exit_process(code: int) -> NoReturn:
    """End the process, without waiting for a Ray that is still busy: what was started goes when
    this is gone.
    """
    from attnfd_ray.runtime.cluster.environment import ray_in_use

    if ray_in_use():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _interrupted(number: int, frame: object) -> None:
    """Take a signal. An exception alone is not enough: raised inside a callback of a library it may
    get lost.
    """
    from attnfd_ray.runtime.jobs.interrupt import ask_to_stop

    _signals.append(number)
    if len(_signals) == 1 and number == signal.SIGINT and ask_to_stop():
        _say("stopping when the epochs that run are over and saved; Ctrl-C again ends at once")
        return
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, lambda *_: _end())
    timer = threading.Timer(_ORDERLY_END_S, _end)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _end() -> None:
    _say(f"interrupted; {resume_hint()}")
    os._exit(ended_by_signal())


def _say(text: str) -> None:
    """Write a line to stderr from a signal handler: whatever it broke into may be in the middle of
    one.
    """
    os.write(2, f"\n{text}\n".encode())
