"""Colours of class ids. No torch."""

from __future__ import annotations

Colour = tuple[int, int, int]


def voc_colormap(num_colours: int = 256) -> tuple[Colour, ...]:
    """Return the first Pascal VOC colours, RGB 0..255, at most 256.

    The bits of a class id are dealt to red, green and blue in turn. A channel takes its bits from
    the highest down.

    >>> voc_colormap(4)
    ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    """

    return tuple(map(_colour, range(num_colours)))


def _colour(class_id: int) -> Colour:
    red = _channel(class_id)
    green = _channel(class_id >> 1)
    blue = _channel(class_id >> 2)
    return red, green, blue


def _channel(bits: int) -> int:
    """Return bits 0, 3 and 6 as the highest three bits of a byte, in this order."""
    first = bits & 1
    second = bits >> 3 & 1
    third = bits >> 6 & 1
    return first << 7 | second << 6 | third << 5
