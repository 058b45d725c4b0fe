"""The two-coloured patterns of toyscenes' objects, as masks of the second colour. No torch.

Whole numbers alone decide about a pixel, so masks are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.int64]
Mask = NDArray[np.bool_]
Pattern = Callable[[Grid, Grid, int], Mask]
"""Says where x, y (pixels) have the second colour; the third argument is the width of a stripe, pixels."""


def _stripes(x: Grid, y: Grid, width: int) -> Mask:
    mask: Mask = (x + y) // width % 2 == 1
    return mask


def _checks(x: Grid, y: Grid, width: int) -> Mask:
    mask: Mask = ((x + y) // width + (x - y) // width) % 2 == 1
    return mask


def _dots(x: Grid, y: Grid, width: int) -> Mask:
    u, v = x % (2 * width) - width, y % (2 * width) - width
    return 4 * (u * u + v * v) <= 3 * width * width


def _zigzag(x: Grid, y: Grid, width: int) -> Mask:
    mask: Mask = (y + abs(x % (4 * width) - 2 * width)) // width % 2 == 1
    return mask


def _bricks(x: Grid, y: Grid, width: int) -> Mask:
    shifted = x + y // width % 2 * width
    mask: Mask = (y % width == 0) | (shifted % (2 * width) == 0)
    return mask


def _lattice(x: Grid, y: Grid, width: int) -> Mask:
    return (3 * (x % (2 * width)) < 2 * width) | (3 * (y % (2 * width)) < 2 * width)


def _diamonds(x: Grid, y: Grid, width: int) -> Mask:
    mask: Mask = (
        abs(x % (4 * width) - 2 * width) + abs(y % (4 * width) - 2 * width)
    ) // width % 2 == 1
    return mask


def _planks(x: Grid, y: Grid, width: int) -> Mask:
    return y % (3 * width) < width


def _bars(x: Grid, y: Grid, width: int) -> Mask:
    return x % (3 * width) < width


def _tiles(x: Grid, y: Grid, width: int) -> Mask:
    mask: Mask = (x // (2 * width) + y // (2 * width)) % 2 == 1
    return mask


def _rapids(x: Grid, y: Grid, width: int) -> Mask:
    return _zigzag(y, x, width)


TYPICAL: Mapping[str, Pattern] = {
    "disc": _dots,
    "ring": _zigzag,
    "triangle": _bricks,
    "square": _lattice,
    "hexagon": _diamonds,
    "stripes": _stripes,
    "checker": _checks,
    "boat": _planks,
    "plane": _bars,
    "cross": _tiles,
    "arch": _rapids,
}
"""The pattern that is typical of a class, where `toyscenes --patterns` asks for any."""
