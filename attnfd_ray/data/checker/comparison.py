"""Images, their labels and what networks predict, side by side, as a picture for people to look at.
No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from attnfd_ray.data.checker.overlays import fitted, legend, painted
from attnfd_ray.data.files import Bytes
from attnfd_ray.data.palette import Colour
from attnfd_ray.errors import one_line

_TILE_PIXELS, _MARGIN, _FONT_PIXELS, _LINE_PIXELS = 256, 6, 13, 18
_LONGEST_NAME = 40


class ComparisonRow(NamedTuple):
    """An RGB image_HWC, and a label_HW for every further column: class ids, 255 where a pixel does
    not count.
    """

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
    """Return one picture: a row for each image, a column for each of `titles`, a legend of the
    classes and a note.

    A title is one or more lines; the first column is the image itself. Labels are drawn in the
    image's size, each pixel the colour of its class. Text that is too long for its column is cut.
    """
    tiles = [_tiles(row, palette) for row in rows]
    wide = _MARGIN + max(row[0].width for row in tiles)
    head = _MARGIN + _LINE_PIXELS * max(map(len, titles))
    tops = np.cumsum([head, *(row[0].height + _MARGIN for row in tiles)]).tolist()
    key = legend(
        [one_line(name)[:_LONGEST_NAME] for name in names], palette, _MARGIN + len(titles) * wide
    )
    sheet = Image.new("RGB", (key.width, tops[-1] + key.height + _LINE_PIXELS + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PIXELS)

    def write(text: str, left: int, top: int, width: int) -> None:
        draw.text((left, top), _cut(one_line(text), font, width), fill="black", font=font)

    for number, title in enumerate(titles):
        for line, text in enumerate(title):
            write(text, _MARGIN + number * wide, _MARGIN // 2 + line * _LINE_PIXELS, wide - _MARGIN)
    for row, top in zip(tiles, tops, strict=False):  # the last top is the legend's
        for number, tile in enumerate(row):
            sheet.paste(tile, (_MARGIN + number * wide, top))
    sheet.paste(key, (0, tops[-1]))
    write(note, _MARGIN, tops[-1] + key.height, sheet.width - 2 * _MARGIN)
    return sheet


def most_classes(labels: Iterable[Bytes], count: int) -> list[int]:
    """Return which `count` of the labels_HW, in their order, show as many classes as can be.

    One after another the one with most classes that are not shown yet is taken, the first of
    equals; once all are shown, the count starts anew. Nothing but the labels decides.
    """
    classes = [set(np.unique(label_HW).tolist()) - {255} for label_HW in labels]
    left, chosen, unseen = list(range(len(classes))), list[int](), set[int]()
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
    labels = (Image.fromarray(painted(label_HW, palette)) for label_HW in row.labels)
    return [image, *(label.resize(image.size, Image.Resampling.NEAREST) for label in labels)]


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Return as much of a text as `width` pixels hold, with dots where something is missing."""
    if font.getlength(text) <= width:
        return text
    kept = next(
        length
        for length in range(len(text), -1, -1)
        if font.getlength(f"{text[:length]}...") <= width or not length
    )
    return f"{text[:kept]}..."
