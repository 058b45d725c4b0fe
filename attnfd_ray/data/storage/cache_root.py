"""The directory of files that can be made again: copies of remote datasets, decoded images."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Return $ATTNFD_CACHE, else attnfd-ray under $XDG_CACHE_HOME or ~/.cache.

    The directory may not exist yet.
    """
    if chosen := os.environ.get("ATTNFD_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = Path.home() / ".cache"
    if xdg_cache := os.environ.get("XDG_CACHE_HOME"):
        base = Path(xdg_cache)
    return base / "attnfd-ray"
