"""Free space of file systems and of memory, and the size limit of an image cache. No torch."""

from __future__ import annotations

import os
from pathlib import Path

from attnfd_ray.errors import DataError

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps what processes share
MIB = 2**20
GIB = 2**30

_DEFAULT_SHARE = 0.5
"""Share of the free space; others need some too, such as Ray's own shared memory."""


def free_bytes(directory: Path) -> int:
    """Return how many bytes can still be written under a directory, which may not exist yet."""
    while not directory.exists():
        directory = directory.parent
    stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize


def cache_limit_bytes(
    directory: Path,
    used_bytes: int,
    asked_gib: float | None,
) -> int:
    """Return the size limit of the cache in a directory, which holds `used_bytes` already.

    Without `asked_gib` that is half of the available space. DataError if more is asked for than
    is available.
    """
    available = used_bytes + free_bytes(directory)
    in_memory = directory.is_relative_to(SHARED_MEMORY)
    if asked_gib is None:
        if in_memory:
            available = min(available, used_bytes + _free_memory_bytes())
        return int(_DEFAULT_SHARE * available)
    if asked_gib * GIB > available:
        disk = directory
        way_out = "set ATTNFD_CACHE to another disk"
        if in_memory:
            disk = SHARED_MEMORY
            way_out = "give a container more (docker run --shm-size)"
        raise DataError(
            f"data.cache_gib {asked_gib:g}: {disk} has {available / GIB:.1f} GiB for it; set "
            f"less, null for half of the free space, or {way_out}"
        )
    return int(asked_gib * GIB)


def _free_memory_bytes() -> int:
    """Return the free memory of the machine, or of the container if that is less."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit = _text("/sys/fs/cgroup/memory.max")
    used = _text("/sys/fs/cgroup/memory.current")
    if limit.isdigit() and used.isdigit():
        free = min(free, int(limit) - int(used))
    return free


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
