"""Lists and reads the files under a URI, through pyarrow where it can, else through fsspec.

Every failure is one DataError that names data.root and the URI. It comes within a bounded time
where a library has a timeout. No torch.
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
# Timeouts of a connection to S3, of which three are tried.
_CONNECT_S = 5.0
_SILENCE_S = 10.0
_GCS_RETRY_OPTION = "retry_limit_seconds"
_GCS_RETRY_S = 20
_CHUNK_BYTES = 4 << 20
_MAX_REASON = 200
# The names that the file systems of fsspec have for the time of a file's last change.
_TIME_KEYS = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
_S3_OPTIONS = ("scheme", "endpoint_override", "tls_ca_file_path")

Answer = TypeVar("Answer")


class FileState(NamedTuple):
    """What shows that a file has changed; `changed_s` is 0 where the store has no times."""

    num_bytes: int
    changed_s: int


class RemoteFiles(ABC):
    """The files under a URI by their relative names, which are not checked."""

    def __init__(self, uri: str, base: str) -> None:
        self.uri = uri
        self._base = base.rstrip("/")

    def states(self) -> dict[str, FileState]:
        """Return the state of every file by name. Raises DataError."""
        try:
            found = _within(_LISTING_S, lambda: dict(self._list()))
        except Exception as error:  # the libraries under fsspec raise any exception
            raise _unreadable(self.uri, error) from error
        prefix = self._path("")
        return {path.removeprefix(prefix): state for path, state in found.items()}

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file. Raises DataError."""
        try:
            with self._open(self._path(name)) as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    yield chunk
        except Exception as error:  # as above
            raise DataError(
                f"data.root {self.uri}: {name} cannot be read ({_reason(error)}); start again, "
                "files that are copied already are kept"
            ) from error

    def _path(self, name: str) -> str:
        """Return the path of a name in the store."""
        if not self._base:
            return name
        return f"{self._base}/{name}"

    @abstractmethod
    def is_directory(self) -> bool:
        """Return whether the URI names a directory. A library's error if it names nothing."""

    @abstractmethod
    def _list(self) -> Iterator[tuple[str, FileState]]: ...

    @abstractmethod
    def _open(self, path: str) -> Any: ...


class _Arrow(RemoteFiles):
    def __init__(self, uri: str) -> None:
        self._files, base = fs.FileSystem.from_uri(_with_gcs_retry_limit(uri))
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
                raise ValueError(f"it gives no size for {path}")
            yield path, FileState(info["size"], _changed_s(info))

    def _open(self, path: str) -> Any:
        return self._files.open(path, "rb")


def open_uri(uri: str) -> RemoteFiles:
    """Return the files under a URI, which has answered once. DataError if it cannot be read."""
    kind: type[_Arrow | _Fsspec] = _Fsspec
    if urlsplit(uri).scheme in _ARROW_SCHEMES:
        kind = _Arrow

    def first_answer() -> tuple[RemoteFiles, bool]:
        files = kind(uri)
        return files, files.is_directory()

    try:
        files, is_directory = _within(_FIRST_ANSWER_S, first_answer)
    except Exception as error:  # each library has its own errors for URI, network, key, package
        raise _unreadable(uri, error) from error
    if not is_directory:
        raise DataError(
            f"data.root {uri}: is a file; needed is the directory of a dataset: unpack it there"
        )
    return files


def _unreadable(uri: str, error: Exception) -> DataError:
    """Return a library's error about a URI as one line with the way out."""
    if isinstance(error, ImportError):
        way_out = "pip install what is missing wherever workers run"
    elif isinstance(error, FileNotFoundError):
        way_out = "set data.root to the directory of the dataset"
    else:
        way_out = "check data.root, the network, and the credentials in the environment"
    return DataError(f"data.root {uri}: cannot be read ({_reason(error)}); {way_out}")


def _reason(error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0] or type(error).__name__
    if len(first_line) > _MAX_REASON:
        return f"{first_line[:_MAX_REASON]}..."
    return first_line


def _within(limit_s: float, call: Callable[[], Answer]) -> Answer:
    """Return the result of `call`. TimeoutError after `limit_s`.

    Some libraries have no timeout and retry for minutes.
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
        if future.done():  # the call's own TimeoutError
            raise
        raise TimeoutError(f"no answer in {limit_s:g} s") from None


def _with_gcs_retry_limit(uri: str) -> str:
    """Return the URI with a retry limit for Google's library, which retries for 15 minutes."""
    parts = urlsplit(uri)
    if parts.scheme not in ("gs", "gcs") or _GCS_RETRY_OPTION in uri:
        return uri
    separator = "?"
    if "?" in uri:
        separator = "&"
    return f"{uri}{separator}{_GCS_RETRY_OPTION}={_GCS_RETRY_S}"


def _s3(uri: str, *, region: str) -> fs.S3FileSystem:
    """Return the file system of a URI with timeouts, which a URI cannot set."""
    options = dict(parse_qsl(urlsplit(uri).query))
    # Arrow reads these variables itself only where it opens the whole URI.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        options = {"endpoint_override": endpoint} | options
    return fs.S3FileSystem(
        region=region or None,
        **{name: options[name] for name in _S3_OPTIONS if name in options},
        connect_timeout=_CONNECT_S,
        request_timeout=_SILENCE_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


def _changed_s(info: dict[str, Any]) -> int:
    """Return the time of a file's last change in seconds, or 0 if it is unknown."""
    changed = next((info[name] for name in _TIME_KEYS if info.get(name)), 0)
    if isinstance(changed, str):
        with contextlib.suppress(ValueError):
            changed = datetime.fromisoformat(changed)
    if isinstance(changed, datetime):
        changed = changed.timestamp()
    if isinstance(changed, int | float):
        return int(changed)
    return 0
