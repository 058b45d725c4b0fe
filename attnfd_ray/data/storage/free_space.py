"""How much room a file system or the memory has, and how much of it a cache of images may take."""

from __future__ import annotations

import os
from pathlib import Path

from attnfd_ray.errors import DataError

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps what processes share
MIB, GIB = 2**20, 2**30

_SHARE = 0.5
"""Of what there is room for: others want some too, such as Ray's own shared memory."""


def free_bytes(directory: Path) -> int:
    """Return how much may still be written below a directory, which need not exist yet."""
    while not directory.exists():
        directory = directory.parent
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def cache_limit_bytes(place: Path, used_bytes: int, asked_gib: float | None) -> int:
    """Return how large the cache at a place, with so much in it already, may get; unasked half of
    what there is.

    DataError where more is asked for than there is.
    """
    room = used_bytes + free_bytes(place)
    in_memory = place.is_relative_to(SHARED_MEMORY)
    if asked_gib is None:
        return int(_SHARE * (min(room, used_bytes + _free_memory_bytes()) if in_memory else room))
    if asked_gib * GIB > room:
        disk = SHARED_MEMORY if in_memory else place
        way_out = (
            "give a container more (docker run --shm-size)"
            if in_memory
            else "set ATTNFD_CACHE to another disk"
        )
        raise DataError(
            f"data.cache_gib {asked_gib:g}: {disk} has {room / GIB:.1f} GiB for it; set less, "
            "null for half of what "
            f"there is, or {way_out}"
        )
    return int(asked_gib * GIB)


def _free_memory_bytes() -> int:
    """Return the memory that is free, in the whole machine and in a container's share of it."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit, used = _text("/sys/fs/cgroup/memory.max"), _text("/sys/fs/cgroup/memory.current")
    return min(free, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else free


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
