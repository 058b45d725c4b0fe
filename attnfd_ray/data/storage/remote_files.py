"""Lists and reads the files under a URI: through pyarrow what it knows, through fsspec the rest. No
torch.

Whatever goes wrong is one DataError that names data.root and the URI, within a bounded time where a
library lets us say how long to wait.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import datetime
from threading import Thread
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

import fsspec
from pyarrow import fs

from attnfd_ray.errors import DataError

_ARROW_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
_FIRST_ANSWER_S = 60.0
_LISTING_S = 1800.0
_CONNECT_S, _SILENCE_S = 5.0, 10.0  # of a connection to S3, of which three are tried
_RETRY_GCS = "retry_limit_seconds"
_CHUNK_BYTES = 4 << 20
_LONGEST_REASON = 200
# how the file systems of fsspec call the time at which a file was last changed
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")

Answer = TypeVar("Answer")


class FileState(NamedTuple):
    """What tells whether a file has changed; a store that does not say when has `changed_s` 0."""

    num_bytes: int
    changed_s: int


class RemoteFiles(ABC):
    """The files under a URI, each by its name relative to that; names are as the store has them,
    unchecked.
    """

    def __init__(self, uri: str, base: str) -> None:
        self.uri = uri
        self._base = base.rstrip("/")

    def states(self) -> dict[str, FileState]:
        """Return the state of every file by name. Raises DataError."""
        try:
            found = _within(_LISTING_S, lambda: dict(self._list()))
        except Exception as error:  # libraries below fsspec raise what they like
            raise _unreadable(self.uri, error) from error
        start = f"{self._base}/" if self._base else ""
        return {path.removeprefix(start): state for path, state in found.items()}

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file. Raises DataError."""
        try:
            with self._open(f"{self._base}/{name}" if self._base else name) as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    yield chunk
        except Exception as error:  # as above: told as one line, the library's own behind it
            raise DataError(
                f"data.root {self.uri}: {name} cannot be read ({_reason(error)}); start again, "
                "and what is copied stays"
            ) from error

    @abstractmethod
    def is_directory(self) -> bool:
        """Return whether the URI names something that has files in it; an error of the library
        where nothing is.
        """

    @abstractmethod
    def _list(self) -> Iterator[tuple[str, FileState]]: ...

    @abstractmethod
    def _open(self, path: str) -> Any: ...


class _Arrow(RemoteFiles):
    def __init__(self, uri: str) -> None:
        self._files, base = fs.FileSystem.from_uri(_patient_for_seconds(uri))
        if isinstance(self._files, fs.S3FileSystem):
            self._files = _s3(uri, region=self._files.region)
        super().__init__(uri, base)
        if not self._base:
            raise ValueError("it names no bucket")

    def is_directory(self) -> bool:
        kind = self._files.get_file_info(self._base).type
        if kind == fs.FileType.NotFound:
            raise FileNotFoundError("there is no such bucket or directory")
        return bool(kind == fs.FileType.Directory)

    def _list(self) -> Iterator[tuple[str, FileState]]:
        for info in self._files.get_file_info(fs.FileSelector(self._base, recursive=True)):
            if info.type == fs.FileType.File:
                yield info.path, FileState(info.size, (info.mtime_ns or 0) // 10**9)

    def _open(self, path: str) -> Any:
        return self._files.open_input_stream(path, compression=None)


class _Fsspec(RemoteFiles):
    def __init__(self, uri: str) -> None:
        self._files, base = fsspec.url_to_fs(uri)
        super().__init__(uri, base)

    def is_directory(self) -> bool:
        return bool(self._files.info(self._base)["type"] == "directory")

    def _list(self) -> Iterator[tuple[str, FileState]]:
        self._files.invalidate_cache()
        for path, info in self._files.find(self._base, detail=True).items():
            if not isinstance(info.get("size"), int):
                raise ValueError(f"it does not tell the size of {path}")
            yield path, FileState(info["size"], _changed_s(info))

    def _open(self, path: str) -> Any:
        return self._files.open(path, "rb")


def open_uri(uri: str) -> RemoteFiles:
    """Return the files under a URI, after a first answer. DataError where there are none, or no way
    to them.
    """
    kind = _Arrow if urlsplit(uri).scheme in _ARROW_SCHEMES else _Fsspec

    def first_answer() -> tuple[RemoteFiles, bool]:
        files = kind(uri)
        return files, files.is_directory()

    try:
        files, is_directory = _within(_FIRST_ANSWER_S, first_answer)
    except (
        Exception
    ) as error:  # a wrong URI, no network, no key, no package: each library has its own for them
        raise _unreadable(uri, error) from error
    if not is_directory:
        raise DataError(
            f"data.root {uri}: is a file; needed is the directory of a dataset: unpack it there"
        )
    return files


def _unreadable(uri: str, error: Exception) -> DataError:
    """Return what a library said of a URI as one line with the way out."""
    if isinstance(error, ImportError):
        way_out = "pip install what is missing wherever workers run"
    elif isinstance(error, FileNotFoundError):
        way_out = "set data.root to the directory of the dataset"
    else:
        way_out = "check data.root, the network, and the credentials in the environment"
    return DataError(f"data.root {uri}: cannot be read ({_reason(error)}); {way_out}")


def _reason(error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0] or type(error).__name__
    return (
        first_line if len(first_line) <= _LONGEST_REASON else f"{first_line[:_LONGEST_REASON]}..."
    )


def _within(limit_s: float, call: Callable[[], Answer]) -> Answer:
    """Return what `call` returns; TimeoutError where that takes longer, since some libraries try
    for a quarter hour.
    """
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again in the other thread
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(limit_s)
    except TimeoutError:
        if future.done():  # it was the call's own
            raise
        raise TimeoutError(f"no answer in {limit_s:g} s") from None


def _patient_for_seconds(uri: str) -> str:
    """Return the URI with a limit to the time for which Google's library tries again; by itself a
    quarter hour.
    """
    if urlsplit(uri).scheme not in ("gs", "gcs") or _RETRY_GCS in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}{_RETRY_GCS}=20"


def _s3(uri: str, *, region: str) -> fs.S3FileSystem:
    """Return the file system of a URI with limits that a URI cannot have: by itself it tries for
    minutes.
    """
    options = dict(parse_qsl(urlsplit(uri).query))
    # what Arrow itself reads only where it takes the whole URI
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        options = {"endpoint_override": endpoint} | options
    return fs.S3FileSystem(
        region=region or None,
        **{
            name: options[name]
            for name in ("scheme", "endpoint_override", "tls_ca_file_path")
            if name in options
        },
        connect_timeout=_CONNECT_S,
        request_timeout=_SILENCE_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


def _changed_s(info: dict[str, Any]) -> int:
    found = next((info[name] for name in _TIMES if info.get(name)), 0)
    if isinstance(found, str):
        with contextlib.suppress(ValueError):
            found = datetime.fromisoformat(found)
    if isinstance(found, datetime):
        found = found.timestamp()
    return int(found) if isinstance(found, int | float) else 0
