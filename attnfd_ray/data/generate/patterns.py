"""The two-coloured patterns of toyscenes' objects, as masks of the second colour. No torch.

They use whole numbers only, so masks are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.int64]
Mask = NDArray[np.bool_]
Pattern = Callable[[Grid, Grid, int], Mask]
"""Returns where x, y (pixels) have the second colour; the third argument is a stripe's width."""


def _stripes(x: Grid, y: Grid, width: int) -> Mask:
    return _is_odd((x + y) // width)


def _checks(x: Grid, y: Grid, width: int) -> Mask:
    first = (x + y) // width
    second = (x - y) // width
    return _is_odd(first + second)


def _dots(x: Grid, y: Grid, width: int) -> Mask:
    period = 2 * width
    u = x % period - width
    v = y % period - width
    return 4 * (u * u + v * v) <= 3 * width * width


def _zigzag(x: Grid, y: Grid, width: int) -> Mask:
    height = y + _triangle_wave(x, width)
    return _is_odd(height // width)


def _bricks(x: Grid, y: Grid, width: int) -> Mask:
    row = y // width
    shifted = x + row % 2 * width
    is_horizontal_joint = y % width == 0
    is_vertical_joint = shifted % (2 * width) == 0
    mask: Mask = is_horizontal_joint | is_vertical_joint
    return mask


def _lattice(x: Grid, y: Grid, width: int) -> Mask:
    period = 2 * width
    is_column = 3 * (x % period) < period
    is_row = 3 * (y % period) < period
    return is_column | is_row


def _diamonds(x: Grid, y: Grid, width: int) -> Mask:
    distance = _triangle_wave(x, width) + _triangle_wave(y, width)
    return _is_odd(distance // width)


def _planks(x: Grid, y: Grid, width: int) -> Mask:
    return y % (3 * width) < width


def _bars(x: Grid, y: Grid, width: int) -> Mask:
    return x % (3 * width) < width


def _tiles(x: Grid, y: Grid, width: int) -> Mask:
    side = 2 * width
    return _is_odd(x // side + y // side)


def _rapids(x: Grid, y: Grid, width: int) -> Mask:
    return _zigzag(y, x, width)


def _triangle_wave(x: Grid, width: int) -> Grid:
    """Return a wave of period 4 * width that falls from 2 * width to 0 and rises again."""
    return abs(x % (4 * width) - 2 * width)


def _is_odd(numbers: Grid) -> Mask:
    odd: Mask = numbers % 2 == 1
    return odd


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
"""The pattern typical of each class, used with `toyscenes --patterns`."""
