"""Reads single files: images, masks, lists. An unusable file is a DataError that names it. No
torch.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attnfd_ray.data.palette import Colour
from attnfd_ray.errors import DataError

Bytes = NDArray[np.uint8]

_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# Pillow goes by a file's content, and other formats, such as PostScript, would start a program to
# draw them.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")

_PLACES = np.array([1 << 16, 1 << 8, 1], dtype=np.int32)  # red, green and blue as one number


def read_image(path: Path) -> Bytes:
    """Return image_HWC, RGB."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{path}: the image has mode {image.mode}; needed are 8 bits a channel: "
                    "convert it first"
                )
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except _DECODING_ERRORS as error:
        raise _unreadable(path, error) from None


def read_mask(path: Path) -> Bytes:
    """Return the values_HW of a mask with a palette or in grey, as they are in the file."""
    try:
        with Image.open(path, formats=FORMATS) as mask:
            if mask.mode not in ("P", "L"):
                raise DataError(
                    f"{path}: the mask has mode {mask.mode}; needed is one class id a pixel, an "
                    "8-bit PNG with a "
                    "palette (P) or grey (L): convert it first"
                )
            return np.array(mask)  # never convert(): a palette would become colours
    except _DECODING_ERRORS as error:
        raise _unreadable(path, error) from None


def read_colours(path: Path, meanings: Mapping[Colour, int], *, remedy: str) -> Bytes:
    """Return values_HW: what the colour of each pixel of a mask means, 0..255.

    DataError names the colours that mean nothing; `remedy` is the way out that it tells.
    """
    try:
        with Image.open(path, formats=FORMATS) as mask:
            if mask.mode not in ("RGB", "RGBA", "P"):
                raise DataError(
                    f"{path}: the mask has mode {mask.mode}; needed is one colour a pixel, an RGB "
                    "PNG: convert it first"
                )
            colours_HWC = np.asarray(mask.convert("RGB"), dtype=np.int32)
    except _DECODING_ERRORS as error:
        raise _unreadable(path, error) from None
    codes_HW = colours_HWC @ _PLACES
    known = {int(np.dot(colour, _PLACES)): meaning for colour, meaning in meanings.items()}
    codes = np.array(sorted(known), dtype=np.int32)
    nearest_HW = np.searchsorted(codes[:-1], codes_HW)  # without the last, no place is past the end
    wrong = np.unique(codes_HW[codes[nearest_HW] != codes_HW])
    if len(wrong):
        colours = [(code >> 16, code >> 8 & 255, code & 255) for code in wrong.tolist()]
        raise DataError(
            f"{path}: mask colours {few(colours)} are no class; needed are the {len(known)} of "
            f"the dataset: {remedy}"
        )
    return np.array([known[code] for code in codes.tolist()], dtype=np.uint8)[nearest_HW]


def read_list(path: Path, *, root: Path) -> list[str]:
    """Return the lines of a split's list, blank ones left out; DataError names the lists there
    are.
    """
    if not path.is_file():
        there = sorted(found.stem for found in path.parent.glob("*.txt") if found.is_file())
        raise DataError(
            f"{root}: there is no list {path.relative_to(root)}; there is: "
            f"{', '.join(there) or 'none'}; "
            "set data.train_split and data.val_split"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(
            f"{path}: cannot be read as text; needed is a list with one image a line"
        ) from None
    return [line.strip() for line in lines if line.strip()]


def few(things: Sequence[object], shown: int = 5) -> str:
    """Return the first of the things as words for a message."""
    return ", ".join(map(str, things[:shown])) + (", ..." if len(things) > shown else "")


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()).replace(f" {str(path)!r}", "")
    return DataError(
        f"{path}: cannot be read ({reason}); needed is a whole image file: copy it again"
    )
