"""Which software ran: what a result needs said to be believed."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from functools import cache

_PACKAGES = ("attnfd-ray", "torch", "torchvision", "ray", "optuna", "pyarrow", "numpy")


@cache
def versions() -> dict[str, str]:
    """Return package -> version of this process."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in _PACKAGES
    }


def git_commit() -> str | None:
    """Return the commit of the directory the command was given in, with `+` if it was changed; None
    outside git.
    """
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit}+" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)  # noqa: S603
    return done.stdout.strip()
