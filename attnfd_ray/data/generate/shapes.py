"""The outlines of toyscenes' objects, as masks. No torch.

They use only additions, products and comparisons of rounded numbers, so masks are the same on every
machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Plane = NDArray[np.float64]
Outline = Callable[[Plane, Plane], Mask]
"""Returns which points (u, v) are inside; v points down. A shape about fills the unit disc."""


def turned(
    size: int,
    centre: tuple[int, int],
    radius: int,
    degrees: int,
) -> tuple[Plane, Plane]:
    """Return u_HW, v_HW: the pixels in the coordinates of a shape.

    The shape is at `centre` (x, y), `radius` pixels large, and turned by `degrees`.
    """
    centre_x, centre_y = centre
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    x = columns - centre_x
    y = rows - centre_y
    cosine, sine = rounded_turn(degrees)
    u = (x * cosine + y * sine) / radius
    v = (y * cosine - x * sine) / radius
    return u, v


def rounded_turn(degrees: float) -> tuple[float, float]:
    """Return cosine and sine to six digits, on which all mathematics libraries agree."""
    radians = math.radians(degrees)
    cosine = round(math.cos(radians), 6)
    sine = round(math.sin(radians), 6)
    return cosine, sine


def disc(u: Plane, v: Plane) -> Mask:
    """Return the unit disc."""
    return u * u + v * v <= 1


def ring(u: Plane, v: Plane) -> Mask:
    """Return a disc with a small hole; its rim looks like that of a disc."""
    return disc(u, v) & (u * u + v * v > 0.16)


def ellipse(u: Plane, v: Plane) -> Mask:
    """Return a flat ellipse, the hull of a boat and of a plane."""
    return disc(u * 0.8, v * 1.6)


def cross(u: Plane, v: Plane) -> Mask:
    """Return two crossed bars."""
    across = np.abs(u)
    along = np.abs(v)
    is_inside = np.maximum(across, along) <= 1
    is_on_bar = np.minimum(across, along) <= 0.36
    return is_inside & is_on_bar


def arch(u: Plane, v: Plane) -> Mask:
    """Return a gate: a half ring on two legs."""
    outside = _gate(u, v)
    inside = _gate(u * 2, v * 2)
    return outside & ~inside & (v <= 0.9)


def _gate(u: Plane, v: Plane) -> Mask:
    """Return a half disc on an endless rectangle."""
    is_between = np.abs(u) <= 1
    is_below = v > 0
    return disc(u, v) | (is_between & is_below)


def polygon(sides: int, inner_radius: float) -> Outline:
    """Return the outline of a regular polygon; `inner_radius` is the distance centre to side."""
    normals = [rounded_turn(360 * side / sides) for side in range(sides)]

    def outline(u: Plane, v: Plane) -> Mask:
        half_planes = [u * cosine + v * sine <= inner_radius for cosine, sine in normals]
        inside: Mask = np.logical_and.reduce(half_planes)
        return inside

    return outline


def blob(lobes: Sequence[Sequence[float]]) -> Outline:
    """Return the union of a disc with further discs centred at `lobes`."""
    centres: list[Sequence[float]] = [(0.0, 0.0), *lobes]

    def outline(u: Plane, v: Plane) -> Mask:
        discs = [disc((u - x) * 1.5, (v - y) * 1.5) for x, y in centres]
        inside: Mask = np.logical_or.reduce(discs)
        return inside

    return outline
