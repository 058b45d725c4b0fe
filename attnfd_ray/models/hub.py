"""ImageNet weights on the Hugging Face hub: from its cache, or downloaded.

A download that cannot work fails within seconds; the hub's own client retries for minutes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnfd_ray.models.imagenet import NotThere, Source, ask_for


@dataclass(frozen=True, kw_only=True)
class HubRepo(Source):
    """A repository of the Hugging Face hub; `files` are names of the weights, the best first."""

    repo: str
    revision: str | None = None
    files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")

    def cached(self) -> Path | None:
        """Return the file in the hub's cache."""
        for name in self.files:
            path = _hub().try_to_load_from_cache(self.repo, name, revision=self.revision)
            if isinstance(path, str):  # else None, or a mark that the repository has no such file
                return Path(path)
        return None

    def fetch(self) -> Path:
        """Download the file into the hub's cache, without its progress bars and warnings."""
        hub = _hub()
        name = self._first_on_hub()
        with _quiet(hub):
            return Path(hub.hf_hub_download(self.repo, name, revision=self.revision))

    def reach(self) -> None:
        """Send the hub a HEAD request for the file."""
        self._first_on_hub()

    def by_hand(self) -> str:
        """Return the command that fetches the file, and the directory of the cache."""
        revision = ""
        if self.revision:
            revision = f" --revision {self.revision}"
        return (
            f"where there is a network run `hf download {self.repo} {self.files[0]}{revision}` and "
            f"copy what it adds to the Hugging Face cache to {_hub().constants.HF_HUB_CACHE}/"
        )

    def _first_on_hub(self) -> str:
        """Return the first of `files` that the hub has, with one request for each name."""
        hub = _hub()
        if hub.constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        for name in self.files:
            with contextlib.suppress(NotThere):
                ask_for(hub.hf_hub_url(self.repo, name, revision=self.revision))
                return name
        raise OSError(f"{self.repo} has no {' or '.join(self.files)}")


def _hub() -> Any:
    import huggingface_hub  # slow to import, and only smp's networks need it

    return huggingface_hub


@contextlib.contextmanager
def _quiet(hub: Any) -> Iterator[None]:
    """Hide the hub's warnings and progress bars from the user."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    bars_were_off = hub.utils.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if not bars_were_off:
            hub.utils.enable_progress_bars()
