"""Local copies of datasets whose `data.root` is a URI: made once per node and kept current."""

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
# The colon of github://org:repo@branch is not before a password.
_SECRETS = re.compile(
    r"^(?!github)\w+://[^/@:]*:[^@]*@|[?&][^=]*(key|secret|token|sig|password|credential)[^=]*=",
    re.IGNORECASE,
)

_log = logging.getLogger(__name__)


def local_root(
    root: str | Path,
    *,
    unread: Sequence[str] = (),
    relist: bool = False,
) -> Path:
    """Return the local directory of a dataset's root: a path itself, or the copy of a URI.

    Files whose names match a pattern in `unread` are not copied. With `relist` the copy is updated
    to what the URI holds now. A command does that once. Its workers use a complete copy as it is,
    and compare its hash with the command's. DataError if the URI cannot be read or copied.
    """
    uri = str(root)
    if "://" not in uri:
        return Path(root).expanduser()
    if _SECRETS.search(uri):
        raise DataError(
            f"data.root {uri.partition('://')[0]}://...: has a password or key in it, which the "
            "results would keep; needed is a URI without: put them where its library looks for "
            "them, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if uri.startswith("file://"):
        return _path_of(uri)
    directory = cache_root() / "mirrors" / digest([uri, *unread])
    mirror = _Mirror(uri, directory, tuple(unread))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(mirror):
            if relist or not mirror.is_complete():
                mirror.update()
    except OSError as error:
        raise DataError(
            f"data.root {uri}: its copy in {directory} cannot be written "
            f"({error.strerror or error}); set ATTNFD_CACHE to a directory of yours with free space"
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
    """The local copy of the files under a URI. Only the holder of its lock may change it.

    Each file appears complete or not at all, with its size and time, which identify it later. The
    file `listed` exists while the copy is complete.
    """

    uri: str
    directory: Path
    unread: tuple[str, ...]

    @property
    def files(self) -> Path:
        """The directory with the same files as the URI."""
        return self.directory / "files"

    def is_complete(self) -> bool:
        """Return whether all files are copied that were at the URI at the last listing."""
        return self._listed.is_file()

    def update(self) -> None:
        """Copy what is at the URI now. DataError, or OSError if the copy cannot be written."""
        remote = open_uri(self.uri)
        wanted = self._wanted(remote.states())
        local = _states_in(self.files)
        lacking = {name: state for name, state in wanted.items() if local.get(name) != state}
        surplus = local.keys() - wanted
        if lacking or surplus:
            self._listed.unlink(missing_ok=True)
        for name in surplus:
            (self.files / name).unlink()
        _remove_empty_directories(self.files)
        if lacking:
            self._check_free_space(lacking)
            self._copy_all(remote, lacking)
        self._listed.write_text(f"{self.uri}\n", encoding="utf-8")

    @property
    def _listed(self) -> Path:
        return self.directory / "listed"

    def _wanted(self, listing: Mapping[str, FileState]) -> dict[str, FileState]:
        """Return the files of a listing that a dataset may read.

        DataError if the names cannot be files of one directory, or if there are none.
        """
        parents = {str(parent) for name in listing for parent in PurePosixPath(name).parents}
        wrong = sorted(name for name in listing if not _is_inside(name) or name in parents)
        if wrong:
            raise DataError(
                f"data.root {self.uri}: {len(wrong)} names cannot be files of a directory: "
                f"{few(wrong)}; needed are names without '..', '.' and '//', and no file that is "
                "a directory too: rename them"
            )
        wanted = {name: state for name, state in listing.items() if not self._is_unread(name)}
        if not wanted:
            raise DataError(
                f"data.root {self.uri}: there are no files; set data.root to the directory of the "
                "dataset"
            )
        return wanted

    def _is_unread(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.unread)

    def _check_free_space(self, lacking: Mapping[str, FileState]) -> None:
        needed = _num_bytes(lacking)
        free = free_bytes(self.directory)
        if needed > free:
            raise DataError(
                f"data.root {self.uri}: {needed / GIB:.2f} GiB are to be copied and "
                f"{self.directory} has {free / GIB:.2f} GiB free, {(needed - free) / GIB:.2f} GiB "
                "too little; set ATTNFD_CACHE to a directory on a larger disk"
            )

    def _copy_all(
        self,
        remote: RemoteFiles,
        lacking: Mapping[str, FileState],
    ) -> None:
        """Copy files, several at a time. Completed ones are kept if another one fails."""
        amount = f"{len(lacking)} files, {_num_bytes(lacking) / GIB:.2f} GiB"
        _log.warning("data.root %s: copying %s to %s", self.uri, amount, self.files)
        parts = self.directory / "parts"
        shutil.rmtree(parts, ignore_errors=True)  # left by a killed process
        parts.mkdir()
        stop = threading.Event()
        with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
            jobs = [
                (remote, name, state, parts / f"{number}.part", stop)
                for number, (name, state) in enumerate(lacking.items())
            ]
            try:
                # After an error, `map` cancels the copies that have not started.
                for _ in pool.map(lambda job: self._copy(*job), jobs):
                    pass
            finally:  # an error, or Ctrl-C, ends the running copies at their next chunk
                stop.set()
        _log.warning("data.root %s: copied %s", self.uri, amount)

    def _copy(
        self,
        remote: RemoteFiles,
        name: str,
        state: FileState,
        part: Path,
        stop: threading.Event,
    ) -> None:
        """Copy one file to a part, then rename it."""
        with part.open("wb") as file:
            for chunk in remote.chunks(name):
                if stop.is_set():
                    return
                file.write(chunk)
        num_bytes = part.stat().st_size
        if num_bytes != state.num_bytes:
            raise DataError(
                f"data.root {self.uri}: {name} has {num_bytes} bytes and was listed with "
                f"{state.num_bytes}; start again when no other program writes there"
            )
        os.utime(part, (state.changed_s, state.changed_s))
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)


@contextmanager
def _locked(mirror: _Mirror) -> Iterator[None]:
    """Hold the lock of a mirror. The kernel releases it if the process is killed."""
    lock = os.open(mirror.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
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
    """Return the state of every file under a directory by its relative name."""
    states = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            stat = path.lstat()
            relative = path.relative_to(directory).as_posix()
            states[relative] = FileState(stat.st_size, int(stat.st_mtime))
    return states


def _remove_empty_directories(directory: Path) -> None:
    for parent, _, _ in os.walk(directory, topdown=False):
        if not any(Path(parent).iterdir()):
            Path(parent).rmdir()
