"""A bounded cache of decoded images and labels: files that all processes of a machine map.

The cache directory holds one directory for each state of a dataset's files. A process that uses one
holds a shared lock on it, which the kernel releases when the process is killed. In shared memory a
directory that no process holds is removed. On a disk it stays until its space is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.storage.cache_root import cache_root
from attnfd_ray.data.storage.decoded_file import (
    Decoded,
    map_decoded,
    size_bytes,
    write_decoded,
)
from attnfd_ray.data.storage.free_space import SHARED_MEMORY, cache_limit_bytes
from attnfd_ray.errors import DataError

_PART_SUFFIX = ".part"


class ImageCache:
    """The decoded images of one dataset, shared by all who open the same key and directory."""

    def __init__(self, directory: Path, key: str, *, limit_bytes: int) -> None:
        self._root = directory
        self._limit_bytes = limit_bytes
        self._directory = directory / key
        self._is_full = False
        with _locked(directory):
            if _in_memory(directory):
                _remove_unused(directory, but=key)
            self._directory.mkdir(exist_ok=True)
            self._lock: int | None = _open_lock(self._directory)
            try:
                if _try_lock(self._lock):  # no other user, so no other process writes these parts
                    for part in self._directory.glob(f"*{_PART_SUFFIX}"):
                        part.unlink()
                    _recount(directory)
                fcntl.flock(self._lock, fcntl.LOCK_SH)
            except OSError:
                self.close()
                raise

    def memory_left_bytes(self) -> int:
        """Return how much more shared memory the cache may take; 0 for a cache on a disk."""
        if not _in_memory(self._root) or self._lock is None:
            return 0
        with _locked(self._root):
            return max(0, self._limit_bytes - _used_bytes(self._root))

    def read(self, index: int, decode: Callable[[], Decoded]) -> Decoded:
        """Return image_CHW and label_HW (uint8) of a sample, from the cache if they are in it.

        Otherwise they are decoded and added to the cache.
        """
        path = self._directory / str(index)
        found = map_decoded(path)
        if found is None:
            found = decode()
            self._keep(path, *found)
        return found

    def close(self) -> None:
        """Release the cache. The last user of a cache in shared memory removes it."""
        if self._lock is None:
            return
        os.close(self._lock)
        self._lock = None
        if _in_memory(self._root):
            forget_memory()

    def __getstate__(self) -> dict[str, Any]:
        # The process that sends the cache to another one holds the lock for both.
        return vars(self) | {"_lock": None}

    def _keep(self, path: Path, image_CHW: Tensor, label_HW: Tensor) -> None:
        """Write a sample's file if there is space. A full or broken cache is not an error."""
        if self._is_full:
            return
        part = path.with_name(f"{path.name}{_PART_SUFFIX}")
        try:
            # Exclusive, because a part that another process writes is its own.
            with part.open("xb") as file:
                # Only now it is certain whether the file exists: a faster process renames its part
                # without a lock.
                if map_decoded(path) is not None or not self._claim(size_bytes(label_HW)):
                    part.unlink()
                    return
                write_decoded(file, image_CHW, label_HW)
            part.replace(path)
        except FileExistsError:
            return
        except OSError:  # the directory was removed, or other files filled the disk
            self._is_full = True
            part.unlink(missing_ok=True)

    def _claim(self, num_bytes: int) -> bool:
        """Count the bytes if they fit into the cache; return whether they do."""
        with _locked(self._root):
            if _used_bytes(self._root) + num_bytes > self._limit_bytes:
                _remove_unused(self._root, but=self._directory.name)
            used = _used_bytes(self._root) + num_bytes
            self._is_full = used > self._limit_bytes
            if not self._is_full:
                _write_used(self._root, used)
        return not self._is_full


def open_cache(data: DataSettings, key: str) -> ImageCache | None:
    """Return the cache that `data.cache` asks for, or None. DataError if it cannot be written."""
    limit_bytes = checked_limit_bytes(data)
    if limit_bytes is None:
        return None
    try:
        return ImageCache(_cache_directory(data), key, limit_bytes=limit_bytes)
    except OSError as error:
        raise _unusable(data, error) from None


def checked_limit_bytes(data: DataSettings) -> int | None:
    """Return the size limit of the cache, or None without a cache.

    DataError if its directory cannot be used or has less space than `data.cache_gib`.
    """
    if data.cache == "none":
        return None
    directory = _cache_directory(data)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_own_directory(directory):
            raise DataError(
                f"data.cache {data.cache}: {directory} belongs to another user, or is a link; "
                "remove it, or set data.cache: none"
            )
        with _locked(directory):
            used_bytes = _used_bytes(directory)
    except OSError as error:
        raise _unusable(data, error) from None
    return cache_limit_bytes(directory, used_bytes, data.cache_gib)


def forget_memory(*, in_use_too: bool = False) -> None:
    """Remove the images in shared memory that no process uses, such as those of killed processes.

    With `in_use_too` all are removed: processes that use them decode again and cache no more.
    """
    directory = _memory_directory()
    with contextlib.suppress(OSError):
        if _is_own_directory(directory):
            with _locked(directory):
                _remove_unused(directory, in_use_too=in_use_too)


def _is_own_directory(path: Path) -> bool:
    """Return whether a path is a directory of this user and not a link."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _unusable(data: DataSettings, error: OSError) -> DataError:
    path = error.filename or _cache_directory(data)
    return DataError(
        f"data.cache {data.cache}: {path} cannot be written ({error.strerror}); set ATTNFD_CACHE "
        "to a directory of yours, or data.cache: none"
    )


def _cache_directory(data: DataSettings) -> Path:
    if data.cache == "memory":
        return _memory_directory()
    return cache_root() / "images"


def _memory_directory() -> Path:
    return SHARED_MEMORY / f"attnfd-ray-{os.getuid()}"


def _in_memory(directory: Path) -> bool:
    return directory.is_relative_to(SHARED_MEMORY)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock that guards the count of bytes and the list of directories."""
    lock = _open_lock(directory)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _open_lock(directory: Path) -> int:
    """Return the file descriptor of a directory's lock file."""
    return os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _used_bytes(directory: Path) -> int:
    """Return how many bytes are written or claimed, as counted."""
    try:
        return int((directory / "used").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return _recount(directory)


def _write_used(directory: Path, used: int) -> None:
    (directory / "used").write_text(str(used), encoding="ascii")


def _recount(directory: Path) -> int:
    used = 0
    for subdirectory in _subdirectories(directory):
        for file in os.scandir(subdirectory):
            # A part is renamed or removed without a lock.
            with contextlib.suppress(FileNotFoundError):
                used += file.stat().st_size
    _write_used(directory, used)
    return used


def _remove_unused(
    directory: Path,
    *,
    but: str = "",
    in_use_too: bool = False,
) -> None:
    """Remove the subdirectories that no process holds, or all of them."""
    is_changed = False
    for subdirectory in _subdirectories(directory):
        if subdirectory.name != but and (in_use_too or not _is_held(subdirectory)):
            # A process that wants it now waits for the lock of `directory`.
            shutil.rmtree(subdirectory, ignore_errors=True)
            is_changed = True
    if is_changed:
        _recount(directory)


def _is_held(directory: Path) -> bool:
    lock = _open_lock(directory)
    try:
        return not _try_lock(lock)
    finally:
        # Closed before the directory is removed: a network disk keeps open files under other names.
        os.close(lock)


def _subdirectories(directory: Path) -> list[Path]:
    return [found for found in directory.iterdir() if found.is_dir()]
