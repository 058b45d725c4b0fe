"""Images with their masks laid over in the classes' colours, as pictures for people to look at. No
torch.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.files import Bytes
from attnfd_ray.data.palette import Colour

_OPACITY = 0.5
_HATCH = ((96, 96, 96), (176, 176, 176))
_HATCH_PIXELS = 4
_MARGIN, _SWATCH = 6, 14


def overlay(image_HWC: Bytes, label_HW: Bytes, palette: Sequence[Colour]) -> Bytes:
    """Return overlay_HWC: the RGB image, tinted by class; pixels that do not count are hatched in
    grey.
    """
    mixed: Bytes = (
        (image_HWC * (1 - _OPACITY) + painted(label_HW, palette) * _OPACITY)
        .round()
        .astype(np.uint8)
    )
    return mixed


def painted(label_HW: Bytes, palette: Sequence[Colour]) -> Bytes:
    """Return painted_HWC: every pixel in its class's colour; pixels that do not count are hatched
    in grey.
    """
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    painted_HWC: Bytes = colours[label_HW]
    hatch_HW = np.add.outer(*map(np.arange, label_HW.shape)) // _HATCH_PIXELS % 2
    ignored_HW = label_HW == IGNORED
    painted_HWC[ignored_HW] = np.array(_HATCH, np.uint8)[hatch_HW[ignored_HW]]
    return painted_HWC


def fitted(image_HWC: Bytes, side: int) -> Image.Image:
    """Return the image with a long side of `side` pixels, or the largest whole multiple of its own
    below that.
    """
    image = Image.fromarray(image_HWC)
    factor = side / max(image.size)
    if factor >= 1:
        return image.resize(
            [length * int(factor) for length in image.size], Image.Resampling.NEAREST
        )
    return image.resize(
        [max(1, round(length * factor)) for length in image.size], Image.Resampling.BOX
    )


def legend(names: Sequence[str], palette: Sequence[Colour], width: int) -> Image.Image:
    """Return a picture, `width` pixels wide, that says which colour is which class, and which
    pixels do not count.
    """
    font = ImageFont.load_default()
    texts = [*names, "does not count"]
    wide = 3 * _MARGIN + _SWATCH + max(int(font.getlength(text)) for text in texts)
    per_row = max(1, width // wide)
    high = _SWATCH + _MARGIN
    sheet = Image.new("RGB", (width, -(-len(texts) // per_row) * high + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for number, text in enumerate(texts):
        left, top = _MARGIN + number % per_row * wide, _MARGIN + number // per_row * high
        label = number if number < len(names) else IGNORED
        sheet.paste(
            Image.fromarray(painted(np.full((_SWATCH, _SWATCH), label, np.uint8), palette)),
            (left, top),
        )
        draw.text((left + _SWATCH + _MARGIN, top + 1), text, fill="black", font=font)
    return sheet


def tiled(
    tiles: Sequence[Image.Image], names: Sequence[str], palette: Sequence[Colour]
) -> Image.Image:
    """Return the tiles, all of one size, in rows as nearly square as can be, over a legend."""
    columns = int(np.ceil(np.sqrt(len(tiles))))
    wide, high = tiles[0].width + _MARGIN, tiles[0].height + _MARGIN
    rows = -(-len(tiles) // columns)
    key = legend(names, palette, _MARGIN + columns * wide)
    sheet = Image.new("RGB", (key.width, _MARGIN + rows * high + key.height), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (_MARGIN + number % columns * wide, _MARGIN + number // columns * high))
    sheet.paste(key, (0, sheet.height - key.height))
    return sheet


def encoded(image: Image.Image, file_format: str) -> bytes:
    """Return the image as the bytes of a file: `PNG`, or `JPEG`."""
    stream = io.BytesIO()
    image.save(stream, file_format)
    return stream.getvalue()
