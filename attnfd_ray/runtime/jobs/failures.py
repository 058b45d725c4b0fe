"""Classifies an error as a kind of failure, with one line of text for the trial's row.

The kinds are those of `failure_policy`. No ray.
"""

from __future__ import annotations

import re
import site
import socket
import sysconfig
import time
import traceback
from pathlib import Path

import torch
import torch.distributed as dist

import attnfd_ray
from attnfd_ray.atomic import write_atomic
from attnfd_ray.errors import (
    AttnFDError,
    DataError,
    Diverged,
    NoMetric,
    StoreError,
    UserError,
)
from attnfd_ray.run_files import FAILURE_LOG
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.store.store import Store
from attnfd_ray.terms import FailureKind
from attnfd_ray.train import distributed
from attnfd_ray.train.distributed import world_size

_OURS = Path(attnfd_ray.__file__).parent
_LIBRARIES = tuple(
    Path(directory)
    for directory in {
        *site.getsitepackages(),
        site.getusersitepackages(),
        sysconfig.get_paths()["stdlib"],
    }
)
# error -> kind; the first match counts
_KINDS: dict[type[AttnFDError], str] = {
    Diverged: FailureKind.NAN,
    NoMetric: FailureKind.NO_METRIC,
    DataError: FailureKind.DATA,
    StoreError: FailureKind.STORE,
    UserError: FailureKind.CONFIG,
    AttnFDError: FailureKind.RUN,
}

_COLLECTIVES = Path(dist.__file__).parent
_OUR_COLLECTIVES = Path(distributed.__file__)
_BROKEN_CONNECTION = re.compile(
    r"gloo/transport|connection (closed|reset|refused)|timed out|broken pipe", re.IGNORECASE
)


def describe(error: Exception) -> tuple[str, str]:
    """Return the (kind, one line of text) of a failure.

    If the error is not ours, or memory ran out, the text has the host and the innermost frame of
    the user's own code.
    """
    if is_out_of_memory(error):
        return FailureKind.OOM, _line_with_location(error)
    for error_type, kind in _KINDS.items():
        if isinstance(error, error_type):
            return kind, str(error)
    return FailureKind.USER_CODE, f"{type(error).__name__}: {_line_with_location(error)}"


def trace_file(job: Job) -> Path:
    """Return the file with the traceback of a job's last failure."""
    return job.directory / FAILURE_LOG


def write_trace(job: Job, kind: str, trace: str) -> bool:
    """Write a traceback into the run's directory; return whether that succeeded.

    Never raises, so that the failure itself is reported in any case.
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
    """Return whether an allocator ran out of memory.

    On a CPU, torch raises a plain RuntimeError for that, and Python a MemoryError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = "DefaultCPUAllocator: can't allocate memory"
    return isinstance(error, RuntimeError) and text in str(error)


def is_lost_worker(error: Exception) -> bool:
    """Return whether a collective failed because another worker of the group has died.

    gloo has no exception type for it and no fixed text. Either the text is of a broken connection,
    or one of our own collectives failed: all workers call those with the same arguments.
    """
    if world_size() == 1 or not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    if isinstance(error, dist.DistError) or _BROKEN_CONNECTION.search(str(error)):
        return True
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    return _OUR_COLLECTIVES in files and files[-1].is_relative_to(_COLLECTIVES)


def error_location(stack: traceback.StackSummary) -> str:
    """Return `file:line in function, on host` of the innermost frame of the user's code.

    If there is none, of the innermost frame of ours; else of the innermost frame.
    """
    innermost_first = stack[::-1]
    in_files = [frame for frame in innermost_first if not frame.filename.startswith("<")]
    frames = in_files or innermost_first
    users = [frame for frame in frames if not _is_below(frame, (_OURS, *_LIBRARIES))]
    ours = [frame for frame in frames if _is_below(frame, (_OURS,))]
    frame = [*users[:1], *ours[:1], *frames][0]
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}, on {socket.gethostname()}"


def _is_below(frame: traceback.FrameSummary, directories: tuple[Path, ...]) -> bool:
    return any(Path(frame.filename).is_relative_to(directory) for directory in directories)


def _line_with_location(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    location = error_location(traceback.extract_tb(error.__traceback__))
    return f"{lines[0]} ({location})"
