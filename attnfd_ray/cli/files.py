"""Writes the files that a user names with `--out` or `--html`."""

from __future__ import annotations

from pathlib import Path

import click

from attnfd_ray.errors import DataError, one_line


def check_png(path: Path) -> None:
    """Raise click.BadParameter for --out unless the name ends in .png."""
    if path.suffix.lower() != ".png":
        raise click.BadParameter(
            f"{one_line(str(path))}: needs a name that ends in .png", param_hint="--out"
        )


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically. Raises DataError if it cannot be written."""
    from attnfd_ray.atomic import write_atomic

    try:
        write_atomic(path, content)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); give a file in a directory of yours"
        ) from None
