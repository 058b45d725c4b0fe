"""Decoded images and labels as files that all processes of a machine map into their memory; bounded
in size.

A place holds a directory for each state of a dataset's files. Who uses one holds a shared lock on
it, which the kernel takes away from the killed: in shared memory what nobody holds is removed, on a
disk it stays until room is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.storage.cache_root import cache_root
from attnfd_ray.data.storage.free_space import SHARED_MEMORY, cache_limit_bytes
from attnfd_ray.errors import DataError

_HEADER_BYTES = 16  # height and width, and the images begin aligned
_PART = ".part"

Decoded = tuple[Tensor, Tensor]


class ImageCache:
    """The decoded images of one dataset, shared by all who open the same `key` at the same
    `place`.
    """

    def __init__(self, place: Path, key: str, *, limit_bytes: int) -> None:
        self._place, self._limit_bytes = place, limit_bytes
        self._directory = place / key
        self._is_full = False
        with _locked(place):
            if _in_memory(place):
                _remove_unused(place, but=key)
            self._directory.mkdir(exist_ok=True)
            self._lock: int | None = os.open(
                self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600
            )
            try:
                if _try_lock(self._lock):  # nobody else is here, so what is half written stays so
                    for part in self._directory.glob(f"*{_PART}"):
                        part.unlink()
                    _recount(place)
                fcntl.flock(self._lock, fcntl.LOCK_SH)
            except OSError:
                self.close()
                raise

    def memory_left_bytes(self) -> int:
        """Return how much shared memory it may still take."""
        if not _in_memory(self._place) or self._lock is None:
            return 0
        with _locked(self._place):
            return max(0, self._limit_bytes - _used(self._place))

    def read(self, index: int, decode: Callable[[], Decoded]) -> Decoded:
        """Return image_CHW and label_HW (uint8) of a sample: as kept, else as `decode` gives them,
        to be kept.
        """
        path = self._directory / str(index)
        found = _mapped(path)
        if found is None:
            found = decode()
            self._keep(path, *found)
        return found

    def close(self) -> None:
        """Let go of the images; the last to leave shared memory removes them."""
        if self._lock is None:
            return
        os.close(self._lock)
        self._lock = None
        if _in_memory(self._place):
            forget_memory()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {
            "_lock": None
        }  # whoever sends it to another process holds the lock for both

    def _keep(self, path: Path, image_CHW: Tensor, label_HW: Tensor) -> None:
        """Write a sample's file unless there is no room: a cache that is full or broken is no
        reason to fail.
        """
        if self._is_full:
            return
        part = path.with_name(f"{path.name}{_PART}")
        try:
            # exclusive: what another process is writing is its own
            with part.open("xb") as written:
                # looked for only now: a process that was quicker renames what it has written
                # without a lock
                if _mapped(path) is not None or not self._claim(
                    _HEADER_BYTES + 4 * label_HW.numel()
                ):
                    part.unlink()
                    return
                written.write(np.array(label_HW.shape, dtype="<u8").tobytes())
                written.write(np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy()).data)
                written.write(np.ascontiguousarray(label_HW.numpy()).data)
            part.replace(path)
        except FileExistsError:
            return
        except OSError:  # no such directory any more, or a disk full of other things
            self._is_full = True
            part.unlink(missing_ok=True)

    def _claim(self, num_bytes: int) -> bool:
        """Return whether there is room for so many bytes, and count them if so."""
        with _locked(self._place):
            if _used(self._place) + num_bytes > self._limit_bytes:
                _remove_unused(self._place, but=self._directory.name)
            used = _used(self._place) + num_bytes
            self._is_full = used > self._limit_bytes
            if not self._is_full:
                (self._place / "used").write_text(str(used), encoding="ascii")
        return not self._is_full


def open_cache(data: DataSettings, key: str) -> ImageCache | None:
    """Return the cache that `data.cache` asks for, or None; DataError where it cannot be."""
    limit_bytes = checked_limit_bytes(data)
    if limit_bytes is None:
        return None
    try:
        return ImageCache(_place(data), key, limit_bytes=limit_bytes)
    except OSError as error:
        raise _unusable(data, error) from None


def checked_limit_bytes(data: DataSettings) -> int | None:
    """Return how large the cache may get, or None where there is none; DataError where it has no
    place or room.
    """
    if data.cache == "none":
        return None
    place = _place(data)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(place):
            raise DataError(
                f"data.cache {data.cache}: {place} belongs to somebody else; remove it, or set "
                "data.cache: none"
            )
        with _locked(place):
            used_bytes = _used(place)
    except OSError as error:
        raise _unusable(data, error) from None
    return cache_limit_bytes(place, used_bytes, data.cache_gib)


def forget_memory(*, in_use_too: bool = False) -> None:
    """Remove the images in shared memory that no process uses any more, such as those of killed
    ones.

    With `in_use_too` all are removed: who still reads them decodes again, and keeps no more.
    """
    place = _memory_place()
    with contextlib.suppress(OSError):
        if _is_ours(place):
            with _locked(place):
                _remove_unused(place, in_use_too=in_use_too)


def _is_ours(place: Path) -> bool:
    """Return whether a place is a directory that belongs to this user, and no link to one."""
    found = place.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _unusable(data: DataSettings, error: OSError) -> DataError:
    return DataError(
        f"data.cache {data.cache}: {error.filename or _place(data)} cannot be written "
        f"({error.strerror}); set "
        "ATTNFD_CACHE to a directory of yours, or data.cache: none"
    )


def _place(data: DataSettings) -> Path:
    return _memory_place() if data.cache == "memory" else cache_root() / "images"


def _memory_place() -> Path:
    return SHARED_MEMORY / f"attnfd-ray-{os.getuid()}"


def _in_memory(place: Path) -> bool:
    return place.is_relative_to(SHARED_MEMORY)


def _mapped(path: Path) -> Decoded | None:
    """Return what a file holds, mapped: only what is looked at is read, and writing to it changes
    no file.
    """
    try:
        with path.open("rb") as file:
            held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):  # ValueError: it is empty
        return None
    if len(held) < _HEADER_BYTES:
        return None
    height, width = np.frombuffer(held, dtype="<u8", count=2).tolist()
    pixels = height * width
    if len(held) != _HEADER_BYTES + 4 * pixels:
        return None
    # two tensors that share nothing: one that is sent to another process takes along all it shares
    image, label = (
        torch.frombuffer(held, dtype=torch.uint8, offset=_HEADER_BYTES + start, count=count)
        for start, count in ((0, 3 * pixels), (3 * pixels, pixels))
    )
    return image.view(height, width, 3).permute(2, 0, 1), label.view(height, width)


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold the lock that guards the count of bytes and which directories there are."""
    lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _used(place: Path) -> int:
    """Return how many bytes are kept or about to be, as counted."""
    try:
        return int((place / "used").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return _recount(place)


def _recount(place: Path) -> int:
    used = 0
    for directory in _directories(place):
        for file in os.scandir(directory):
            with contextlib.suppress(
                FileNotFoundError
            ):  # a part becomes an image, or goes, without a lock
                used += file.stat().st_size
    (place / "used").write_text(str(used), encoding="ascii")
    return used


def _remove_unused(place: Path, *, but: str = "", in_use_too: bool = False) -> None:
    """Remove the directories that nobody holds, or all."""
    gone = False
    for directory in _directories(place):
        if directory.name != but and (in_use_too or not _is_held(directory)):
            shutil.rmtree(directory, ignore_errors=True)  # whoever wants it now waits for the place
            gone = True
    if gone:
        _recount(place)


def _is_held(directory: Path) -> bool:
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        return not _try_lock(lock)
    finally:
        os.close(
            lock
        )  # before the directory goes: a network disk keeps open files under other names


def _directories(place: Path) -> list[Path]:
    return [found for found in place.iterdir() if found.is_dir()]
