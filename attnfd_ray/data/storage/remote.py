"""The local directory of a dataset whose `data.root` is a URI: its files copied once per node, and
kept up to date.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from attnfd_ray.config.overrides import digest
from attnfd_ray.data.files import few
from attnfd_ray.data.storage.cache_root import cache_root
from attnfd_ray.data.storage.free_space import GIB, free_bytes
from attnfd_ray.data.storage.remote_files import FileState, RemoteFiles, open_uri
from attnfd_ray.errors import DataError

_COPIES_AT_ONCE = 16
# in github://org:repo@branch there is none
_SECRETS = re.compile(
    r"^(?!github)\w+://[^/@:]*:[^@]*@|[?&][^=]*(key|secret|token|sig|password|credential)[^=]*=",
    re.IGNORECASE,
)

_log = logging.getLogger(__name__)


def local_root(root: str | Path, *, unread: Sequence[str] = (), relist: bool = False) -> Path:
    """Return the directory that a dataset's root means: a path as it is, of a URI its copy on this
    machine.

    Files whose names match a pattern in `unread` are not copied. With `relist` the copy is made
    what the URI is now: commands do that once, and their workers take a whole copy as it is, and
    compare its hash with the command's. DataError where it cannot be read or copied.
    """
    uri = str(root)
    if "://" not in uri:
        return Path(root).expanduser()
    if _SECRETS.search(uri):
        raise DataError(
            f"data.root {uri.partition('://')[0]}://...: has a password or key in it, which the "
            "results would keep; "
            "needed is a URI without: put them where its library looks for them, such as "
            "AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    if uri.startswith("file://"):
        return _path_of(uri)
    mirror = _Mirror(uri, cache_root() / "mirrors" / digest([uri, *unread]), tuple(unread))
    try:
        mirror.place.mkdir(parents=True, exist_ok=True)
        with _locked(mirror):
            if relist or not mirror.is_whole():
                mirror.update()
    except OSError as error:
        raise DataError(
            f"data.root {uri}: its copy in {mirror.place} cannot be written "
            f"({error.strerror or error}); set "
            "ATTNFD_CACHE to a directory of yours with room"
        ) from None
    return mirror.files


def _path_of(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc:
        raise DataError(
            f"data.root {uri}: names a host, {parts.netloc}; needed is a path: file:///data, or "
            "/data"
        )
    return Path(unquote(parts.path))


@dataclass(frozen=True)
class _Mirror:
    """The copy of the files under a URI; changed only by who holds its lock.

    Each file comes to be whole or not at all, with its size and time, by which it is known again.
    `listed` is there while all are.
    """

    uri: str
    place: Path
    unread: tuple[str, ...]

    @property
    def files(self) -> Path:
        """The directory that looks as the URI does."""
        return self.place / "files"

    def is_whole(self) -> bool:
        """Return whether all files are there that were at the URI when it was last looked at."""
        return self._listed.is_file()

    def update(self) -> None:
        """Make the copy what is at the URI now. Raises DataError, or OSError where it cannot be
        written.
        """
        remote = open_uri(self.uri)
        there = self._wanted(remote.states())
        here = _states_in(self.files)
        lacking = {name: state for name, state in there.items() if here.get(name) != state}
        if lacking or here.keys() - there:
            self._listed.unlink(missing_ok=True)
        for name in here.keys() - there:
            (self.files / name).unlink()
        _remove_empty_directories(self.files)
        if lacking:
            self._check_room(lacking)
            self._copy_all(remote, lacking)
        self._listed.write_text(f"{self.uri}\n", encoding="utf-8")

    @property
    def _listed(self) -> Path:
        return self.place / "listed"

    def _wanted(self, listing: Mapping[str, FileState]) -> dict[str, FileState]:
        """Return what a dataset may read of a listing; DataError where it cannot be that of a
        directory.
        """
        directories = {
            str(directory) for name in listing for directory in PurePosixPath(name).parents
        }
        wrong = sorted(name for name in listing if not _is_inside(name) or name in directories)
        if wrong:
            raise DataError(
                f"data.root {self.uri}: {len(wrong)} names there are none of files in a "
                f"directory: {few(wrong)}; "
                "needed are names without '..', '.' and '//', and files that are no directories "
                "too: rename them"
            )
        found = {
            name: state
            for name, state in listing.items()
            if not any(fnmatchcase(name, pattern) for pattern in self.unread)
        }
        if not found:
            raise DataError(
                f"data.root {self.uri}: there are no files; set data.root to the directory of the "
                "dataset"
            )
        return found

    def _check_room(self, lacking: Mapping[str, FileState]) -> None:
        needed, free = _num_bytes(lacking), free_bytes(self.place)
        if needed > free:
            raise DataError(
                f"data.root {self.uri}: {needed / GIB:.2f} GiB are to be copied and {self.place} "
                "has room for "
                f"{free / GIB:.2f} GiB, {(needed - free) / GIB:.2f} GiB too little; set "
                "ATTNFD_CACHE to a directory on "
                "a larger disk"
            )

    def _copy_all(self, remote: RemoteFiles, lacking: Mapping[str, FileState]) -> None:
        """Copy files, several at a time; those that are whole stay, whatever happens to the
        others.
        """
        what = f"{len(lacking)} files, {_num_bytes(lacking) / GIB:.2f} GiB"
        _log.warning("data.root %s: copying %s to %s", self.uri, what, self.files)
        parts = self.place / "parts"
        shutil.rmtree(parts, ignore_errors=True)  # of a killed process
        parts.mkdir()
        over = threading.Event()
        with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
            jobs = (
                (remote, *job, parts / f"{number}.part", over)
                for number, job in enumerate(lacking.items())
            )
            try:
                for _ in pool.map(lambda job: self._copy(*job), jobs):
                    pass
            finally:  # an error, or Ctrl-C, ends what is being copied at its next piece
                over.set()
        _log.warning("data.root %s: copied %s", self.uri, what)

    def _copy(
        self, remote: RemoteFiles, name: str, state: FileState, part: Path, over: threading.Event
    ) -> None:
        with part.open("wb") as file:
            for chunk in remote.chunks(name):
                if over.is_set():
                    return
                file.write(chunk)
        if part.stat().st_size != state.num_bytes:
            raise DataError(
                f"data.root {self.uri}: {name} has {part.stat().st_size} bytes and was listed "
                f"with {state.num_bytes}; "
                "start again when nobody is writing there"
            )
        os.utime(part, (state.changed_s, state.changed_s))
        place = self.files / name
        place.parent.mkdir(parents=True, exist_ok=True)
        part.replace(place)


@contextmanager
def _locked(mirror: _Mirror) -> Iterator[None]:
    """Hold the lock of a mirror, which the kernel takes away from the killed."""
    lock = os.open(mirror.place / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("data.root %s: waiting for another process that copies it", mirror.uri)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _is_inside(name: str) -> bool:
    return "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def _num_bytes(states: Mapping[str, FileState]) -> int:
    return sum(state.num_bytes for state in states.values())


def _states_in(directory: Path) -> dict[str, FileState]:
    """Return the state of every file under a directory by its name in it."""
    found = {}
    for place, _, names in os.walk(directory):
        for name in names:
            path = Path(place, name)
            stat = path.lstat()
            found[path.relative_to(directory).as_posix()] = FileState(
                stat.st_size, int(stat.st_mtime)
            )
    return found


def _remove_empty_directories(directory: Path) -> None:
    for place, _, _ in os.walk(directory, topdown=False):
        if not any(Path(place).iterdir()):
            Path(place).rmdir()
