"""What kind of failure an error is, and where it began: what a row of the store says of a trial that failed."""

from __future__ import annotations

import site
import socket
import sysconfig
import traceback
from pathlib import Path

import torch

import attnfd_ray
from attnfd_ray.errors import AttnFDError, DataError, Diverged, StoreError, UserError

_OURS = Path(attnfd_ray.__file__).parent
_LIBRARIES = tuple(
    Path(place) for place in {*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_paths()["stdlib"]}
)


def describe(error: Exception) -> tuple[str, str]:
    """Return the kind of a failure and one line on it.

    Of an error that is not ours: where the user's own code raised it, or called what did, and on which host.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return "OOM", f"{_first_line(error)} (on {socket.gethostname()})"
    if isinstance(error, Diverged):
        return "NAN", str(error)
    if isinstance(error, DataError):
        return "DATA", str(error)
    if isinstance(error, StoreError):
        return "STORE", str(error)
    if isinstance(error, AttnFDError):
        return ("CONFIG" if isinstance(error, UserError) else "RUN"), str(error)
    frame = _frame(error)
    where = f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}, on {socket.gethostname()}"
    return "USER_CODE", f"{type(error).__name__}: {_first_line(error)} ({where})"


def _frame(error: Exception) -> traceback.FrameSummary:
    """Return the innermost frame of the user's code; without any, of ours; else the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)[::-1]
    theirs = (frame for frame in frames if not _is_below(frame, (_OURS, *_LIBRARIES)))
    ours = (frame for frame in frames if _is_below(frame, (_OURS,)))
    return next(theirs, next(ours, frames[0]))


def _is_below(frame: traceback.FrameSummary, places: tuple[Path, ...]) -> bool:
    return any(Path(frame.filename).is_relative_to(place) for place in places)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
