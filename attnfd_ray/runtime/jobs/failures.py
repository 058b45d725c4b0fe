"""What kind of failure an error is, and where it began: what a row of the store says of a trial
that failed.
"""

from __future__ import annotations

import site
import socket
import sysconfig
import time
import traceback
from pathlib import Path

import torch

import attnfd_ray
from attnfd_ray.errors import AttnFDError, DataError, Diverged, NoMetric, StoreError, UserError
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.store.atomic import write_atomic
from attnfd_ray.store.store import Store

_OURS = Path(attnfd_ray.__file__).parent
_LIBRARIES = tuple(
    Path(place)
    for place in {
        *site.getsitepackages(),
        site.getusersitepackages(),
        sysconfig.get_paths()["stdlib"],
    }
)


def describe(error: Exception) -> tuple[str, str]:
    """Return the kind of a failure and one line on it.

    Of an error that is not ours, and of memory that ran out: where the user's own code raised it,
    or called what did, and on which host.
    """
    if is_out_of_memory(error):
        return (
            "OOM",
            f"{_first_line(error)} ({error_location(traceback.extract_tb(error.__traceback__))})",
        )
    if isinstance(error, Diverged):
        return "NAN", str(error)
    if isinstance(error, NoMetric):
        return "NO_METRIC", str(error)
    if isinstance(error, DataError):
        return "DATA", str(error)
    if isinstance(error, StoreError):
        return "STORE", str(error)
    if isinstance(error, AttnFDError):
        return ("CONFIG" if isinstance(error, UserError) else "RUN"), str(error)
    where = error_location(traceback.extract_tb(error.__traceback__))
    return "USER_CODE", f"{type(error).__name__}: {_first_line(error)} ({where})"


def trace_file(job: Job) -> Path:
    """Return where the traceback of a job's last failure is."""
    return job.directory / "failure.log"


def keep_trace(job: Job, kind: str, trace: str) -> bool:
    """Write a traceback into the run's directory; return whether that went well: the failure itself
    has to be told.
    """
    file = trace_file(job)
    try:
        attempt = Store.open(job.settings.store, create=False).last_attempt(job.trial_id)
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        head = f"{kind}: {job.trial_id}, attempt {attempt}, on {socket.gethostname()}, {when}"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, f"{head}\n\n{trace}".encode(errors="backslashreplace"))
    except Exception:  # noqa: BLE001 - whatever it is, it must not hide the failure
        return False
    return True


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an allocator refused; on a CPU torch has no type of its own for that, and
    Python another.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def error_location(stack: traceback.StackSummary) -> str:
    """Return the innermost frame of the user's code and the host; without any, of ours; else the
    innermost of all.
    """
    files = [
        frame for frame in stack[::-1] if not frame.filename.startswith("<")
    ]  # <string> is none
    frames = files or stack[::-1]
    theirs = (frame for frame in frames if not _is_below(frame, (_OURS, *_LIBRARIES)))
    ours = (frame for frame in frames if _is_below(frame, (_OURS,)))
    frame = next(theirs, next(ours, frames[0]))
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}, on {socket.gethostname()}"


def _is_below(frame: traceback.FrameSummary, places: tuple[Path, ...]) -> bool:
    return any(Path(frame.filename).is_relative_to(place) for place in places)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
