"""Reads single files: images, masks, lists. An unusable file is a DataError that names it. No torch."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attnfd_ray.errors import DataError

Bytes = NDArray[np.uint8]

_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def read_image(path: Path) -> Bytes:
    """Return image_HWC, RGB."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{path}: the image has mode {image.mode}; needed are 8 bits a channel: convert it first"
                )
            return np.array(image.convert("RGB"))
    except _DECODING_ERRORS as error:
        raise _unreadable(path, error) from None


def read_mask(path: Path) -> Bytes:
    """Return the values_HW of a mask with a palette or in grey, as they are in the file."""
    try:
        with Image.open(path) as mask:
            if mask.mode not in ("P", "L"):
                raise DataError(
                    f"{path}: the mask has mode {mask.mode}; needed is one class id a pixel, an 8-bit PNG with a "
                    "palette (P) or grey (L): convert it first"
                )
            return np.array(mask)  # never convert(): a palette would become colours
    except _DECODING_ERRORS as error:
        raise _unreadable(path, error) from None


def read_list(path: Path, *, root: Path) -> list[str]:
    """Return the lines of a split's list, blank ones left out; DataError names the lists there are."""
    if not path.is_file():
        there = sorted(found.stem for found in path.parent.glob("*.txt"))
        raise DataError(
            f"{root}: there is no list {path.relative_to(root)}; there is: {', '.join(there) or 'none'}; "
            "set data.train_split and data.val_split"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path}: cannot be read as text; needed is a list with one image a line") from None
    return [line.strip() for line in lines if line.strip()]


def few(things: Sequence[object], shown: int = 5) -> str:
    """Return the first of the things as words for a message."""
    return ", ".join(map(str, things[:shown])) + (", ..." if len(things) > shown else "")


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()).replace(f" {str(path)!r}", "")
    return DataError(f"{path}: cannot be read ({reason}); needed is a whole image file: copy it again")
