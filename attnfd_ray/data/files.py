"""Reads single files: images, masks and lists. No torch.

A file that cannot be used is a DataError that names it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attnfd_ray.data.palette import Colour
from attnfd_ray.errors import DataError

Bytes = NDArray[np.uint8]

# Pillow detects the format from the content. Some formats, such as PostScript, would start another
# program to draw the image.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")

_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_CODE_WEIGHTS = np.array([1 << 16, 1 << 8, 1], dtype=np.int32)  # (red, green, blue) as one number


def read_image(path: Path) -> Bytes:
    """Return image_HWC, RGB. DataError if the file is not an image with 8 bits a channel."""
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):
            raise DataError(
                f"{path}: the image has mode {image.mode}; needed are 8 bits a channel: convert "
                "it first"
            )
        if image.mode != "RGB":
            return np.array(image.convert("RGB"))
        return np.array(image)


def read_mask(path: Path) -> Bytes:
    """Return values_HW of a grey or palette mask, unchanged. DataError if it has another mode."""
    with _opened(path) as mask:
        if mask.mode not in ("P", "L"):
            raise DataError(
                f"{path}: the mask has mode {mask.mode}; needed is one class id a pixel, an 8-bit "
                "PNG with a palette (P) or grey (L): convert it first"
            )
        return np.array(mask)  # convert() would turn palette indices into colours


def read_colours(
    path: Path,
    meanings: Mapping[Colour, int],
    *,
    remedy: str,
) -> Bytes:
    """Return values_HW of a colour mask: each pixel's colour is looked up in `meanings` (0..255).

    DataError names the colours that are not in `meanings` and ends with `remedy`.
    """
    with _opened(path) as mask:
        if mask.mode not in ("RGB", "RGBA", "P"):
            raise DataError(
                f"{path}: the mask has mode {mask.mode}; needed is one colour a pixel, an RGB "
                "PNG: convert it first"
            )
        colours_HWC = np.asarray(mask.convert("RGB"), dtype=np.int32)
    codes_HW = colours_HWC @ _CODE_WEIGHTS
    known = {int(np.dot(colour, _CODE_WEIGHTS)): meaning for colour, meaning in meanings.items()}
    codes = np.array(sorted(known), dtype=np.int32)
    # Searching all codes but the last keeps every index inside `codes`.
    nearest_HW = np.searchsorted(codes[:-1], codes_HW)
    unknown = np.unique(codes_HW[codes[nearest_HW] != codes_HW])
    if len(unknown):
        colours = [(code >> 16, code >> 8 & 255, code & 255) for code in unknown.tolist()]
        raise DataError(
            f"{path}: mask colours {few(colours)} are no class; needed are the {len(known)} of "
            f"the dataset: {remedy}"
        )
    return np.array([known[code] for code in codes.tolist()], dtype=np.uint8)[nearest_HW]


def read_list(path: Path, *, root: Path) -> list[str]:
    """Return the lines of a split's list, without blank lines.

    DataError if there is no such list under `root`; it names the lists that exist.
    """
    if not path.is_file():
        lists = sorted(found.stem for found in path.parent.glob("*.txt") if found.is_file())
        raise DataError(
            f"{root}: there is no list {path.relative_to(root)}; there is: "
            f"{', '.join(lists) or 'none'}; set data.train_split and data.val_split"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(
            f"{path}: cannot be read as text; needed is a list with one image a line"
        ) from None
    return [line.strip() for line in lines if line.strip()]


def few(things: Sequence[object], shown: int = 5) -> str:
    """Return the first things, separated by commas, for a message.

    >>> few([1, 2, 3], shown=2)
    '1, 2, ...'
    """
    text = ", ".join(map(str, things[:shown]))
    if len(things) > shown:
        text += ", ..."
    return text


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file. An error while it is decoded becomes a DataError that names the file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except _DECODING_ERRORS as error:
        reason = " ".join(str(error).split()).replace(f" {str(path)!r}", "")
        raise DataError(
            f"{path}: cannot be read ({reason}); needed is a whole image file: copy it again"
        ) from None
