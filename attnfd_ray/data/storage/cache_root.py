"""Where files are kept that can be made again: copies of remote datasets, decoded images."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Return $ATTNFD_CACHE, else attnfd-ray under $XDG_CACHE_HOME or ~/.cache; it may not exist
    yet.
    """
    if chosen := os.environ.get("ATTNFD_CACHE"):
        return Path(chosen).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "attnfd-ray"
