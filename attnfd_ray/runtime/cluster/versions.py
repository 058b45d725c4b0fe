"""The software versions and the git commit that a result was made with."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from functools import cache

_PACKAGES = ("attnfd-ray", "torch", "torchvision", "ray", "optuna", "pyarrow", "numpy")


@cache
def versions() -> dict[str, str]:
    """Return package -> version in this process, `python` included."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version()} | found


def git_commit() -> str | None:
    """Return the git commit of the working directory, or None outside a git repository.

    A `+` is appended if tracked files have changed since.
    """
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        if _git("status", "--porcelain", "--untracked-files=no"):
            commit += "+"
    except (OSError, subprocess.SubprocessError):
        return None
    return commit


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)  # noqa: S603
    return done.stdout.strip()
