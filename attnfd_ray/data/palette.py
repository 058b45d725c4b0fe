"""Colours of class ids. No torch."""

from __future__ import annotations

Colour = tuple[int, int, int]


def voc_colormap(num_colours: int = 256) -> tuple[Colour, ...]:
    """Return the Pascal VOC colours, RGB 0..255: the bits of an id dealt to R, G, B in turn,
    highest place first.
    """

    def channel(colour_id: int, first_bit: int) -> int:
        return sum((colour_id >> (3 * place + first_bit) & 1) << (7 - place) for place in range(3))

    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(num_colours))
