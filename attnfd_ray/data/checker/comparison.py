"""A picture of images, their labels and the predictions of networks, side by side. No torch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.checker.overlays import fitted, legend, painted
from attnfd_ray.data.files import Bytes
from attnfd_ray.data.palette import Colour
from attnfd_ray.errors import one_line

_TILE_PIXELS = 256
_MARGIN = 6
_FONT_PIXELS = 13
_LINE_PIXELS = 18
_MAX_NAME = 40


class ComparisonRow(NamedTuple):
    """An RGB image_HWC and a label_HW for each further column: class ids, 255 is ignored."""

    image: Bytes
    labels: Sequence[Bytes]


def side_by_side(
    rows: Sequence[ComparisonRow],
    titles: Sequence[Sequence[str]],
    names: Sequence[str],
    palette: Sequence[Colour],
    *,
    note: str,
) -> Image.Image:
    """Return a picture: one row per image, one column per title, a legend and a note.

    A title is one or more lines. The first column is the image itself. Labels are drawn in the
    size of the image, each pixel in the colour of its class. Text too long for its column is cut.
    """
    tiles = [_tiles(row, palette) for row in rows]
    cell_width = _MARGIN + max(row[0].width for row in tiles)
    header_height = _MARGIN + _LINE_PIXELS * max(map(len, titles))
    legend_top = header_height + sum(row[0].height + _MARGIN for row in tiles)
    short_names = [one_line(name)[:_MAX_NAME] for name in names]
    key = legend(short_names, palette, _MARGIN + len(titles) * cell_width)
    note_top = legend_top + key.height
    picture = Image.new("RGB", (key.width, note_top + _LINE_PIXELS + _MARGIN), "white")
    for column, title in enumerate(titles):
        left = _MARGIN + column * cell_width
        for number, text in enumerate(title):
            top = _MARGIN // 2 + number * _LINE_PIXELS
            _write(picture, text, left, top, cell_width - _MARGIN)
    top = header_height
    for row in tiles:
        for column, tile in enumerate(row):
            picture.paste(tile, (_MARGIN + column * cell_width, top))
        top += row[0].height + _MARGIN
    picture.paste(key, (0, legend_top))
    _write(picture, note, _MARGIN, note_top, picture.width - 2 * _MARGIN)
    return picture


def most_classes(labels: Iterable[Bytes], count: int) -> list[int]:
    """Return which `count` of the labels_HW, in ascending order, show as many classes as possible.

    Greedy: the next one has the most classes not shown yet, the first of equals. Once all classes
    are shown, counting starts again. The choice depends on the labels alone.
    """
    classes = [set(np.unique(label_HW).tolist()) - {IGNORED} for label_HW in labels]
    left = list(range(len(classes)))
    chosen: list[int] = []
    unseen: set[int] = set()
    while left and len(chosen) < count:
        if not any(unseen & classes[index] for index in left):
            unseen = set().union(*classes)
        best = max(left, key=lambda index: len(unseen & classes[index]))
        chosen.append(best)
        left.remove(best)
        unseen -= classes[best]
    return sorted(chosen)


def _tiles(row: ComparisonRow, palette: Sequence[Colour]) -> list[Image.Image]:
    image = fitted(row.image, _TILE_PIXELS)
    tiles = [image]
    for label_HW in row.labels:
        label = Image.fromarray(painted(label_HW, palette))
        tiles.append(label.resize(image.size, Image.Resampling.NEAREST))
    return tiles


def _write(
    picture: Image.Image,
    text: str,
    left: int,
    top: int,
    width: int,
) -> None:
    line = _cut(one_line(text), width)
    ImageDraw.Draw(picture).text((left, top), line, fill="black", font=_font())


def _cut(text: str, width: int) -> str:
    """Return as much of a text as fits in `width` pixels, with dots where something is cut."""
    if _width(text) <= width:
        return text
    # a longer text is never narrower, so the longest one that fits is found by bisection
    lengths = range(len(text) + 1)
    fitting = bisect_right(lengths, float(width), key=lambda n: _width(f"{text[:n]}..."))
    return f"{text[: max(fitting - 1, 0)]}..."


def _width(text: str) -> float:
    """Return the width of a text in pixels."""
    return float(_font().getlength(text))


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT_PIXELS)
