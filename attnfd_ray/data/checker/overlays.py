"""Pictures of images with their masks laid over in the colours of the classes. No torch."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.files import Bytes
from attnfd_ray.data.palette import Colour

_OPACITY = 0.5
_HATCH_COLOURS = np.array([(96, 96, 96), (176, 176, 176)], np.uint8)
_HATCH_PIXELS = 4
_MARGIN = 6
_SWATCH = 14


def overlay(
    image_HWC: Bytes,
    label_HW: Bytes,
    palette: Sequence[Colour],
) -> Bytes:
    """Return overlay_HWC: the RGB image, tinted by class, with ignored pixels hatched in grey."""
    tint_HWC = painted(label_HW, palette)
    mixed_HWC = image_HWC * (1 - _OPACITY) + tint_HWC * _OPACITY
    rounded_HWC: Bytes = mixed_HWC.round().astype(np.uint8)
    return rounded_HWC


def painted(label_HW: Bytes, palette: Sequence[Colour]) -> Bytes:
    """Return painted_HWC: each pixel in its class's colour, ignored ones hatched in grey."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    painted_HWC: Bytes = colours[label_HW]
    height, width = label_HW.shape
    diagonals_HW = np.add.outer(np.arange(height), np.arange(width))
    stripe_HW = diagonals_HW // _HATCH_PIXELS % 2
    ignored_HW = label_HW == IGNORED
    painted_HWC[ignored_HW] = _HATCH_COLOURS[stripe_HW[ignored_HW]]
    return painted_HWC


def fitted(image_HWC: Bytes, side: int) -> Image.Image:
    """Return the image with a long side of `side` pixels.

    A smaller image is enlarged by a whole factor, as far as that fits.
    """
    image = Image.fromarray(image_HWC)
    factor = side / max(image.size)
    if factor >= 1:
        enlarged = [length * int(factor) for length in image.size]
        return image.resize(enlarged, Image.Resampling.NEAREST)
    reduced = [max(1, round(length * factor)) for length in image.size]
    return image.resize(reduced, Image.Resampling.BOX)


def legend(
    names: Sequence[str],
    palette: Sequence[Colour],
    width: int,
) -> Image.Image:
    """Return a picture that names the colour of each class and the hatch of ignored pixels.

    It is `width` pixels wide.
    """
    font = ImageFont.load_default()
    texts = [*names, "does not count"]
    labels = [*range(len(names)), IGNORED]
    text_width = max(int(font.getlength(text)) for text in texts)
    cell_width = 3 * _MARGIN + _SWATCH + text_width
    cell_height = _SWATCH + _MARGIN
    num_columns = max(1, width // cell_width)
    num_rows = _ceil_div(len(texts), num_columns)
    picture = Image.new("RGB", (width, num_rows * cell_height + _MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    for number, (label, text) in enumerate(zip(labels, texts, strict=True)):
        row, column = divmod(number, num_columns)
        left = _MARGIN + column * cell_width
        top = _MARGIN + row * cell_height
        swatch_HWC = painted(np.full((_SWATCH, _SWATCH), label, np.uint8), palette)
        picture.paste(Image.fromarray(swatch_HWC), (left, top))
        draw.text((left + _SWATCH + _MARGIN, top + 1), text, fill="black", font=font)
    return picture


def tiled(
    tiles: Sequence[Image.Image],
    names: Sequence[str],
    palette: Sequence[Colour],
) -> Image.Image:
    """Return the tiles, all of one size, in a grid as square as possible, over a legend."""
    num_columns = int(np.ceil(np.sqrt(len(tiles))))
    num_rows = _ceil_div(len(tiles), num_columns)
    cell_width = tiles[0].width + _MARGIN
    cell_height = tiles[0].height + _MARGIN
    key = legend(names, palette, _MARGIN + num_columns * cell_width)
    grid_height = _MARGIN + num_rows * cell_height
    picture = Image.new("RGB", (key.width, grid_height + key.height), "white")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, num_columns)
        picture.paste(tile, (_MARGIN + column * cell_width, _MARGIN + row * cell_height))
    picture.paste(key, (0, grid_height))
    return picture


def encoded(image: Image.Image, file_format: str) -> bytes:
    """Return the image as the bytes of a file of the format `PNG` or `JPEG`."""
    stream = io.BytesIO()
    image.save(stream, file_format)
    return stream.getvalue()


def _ceil_div(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
