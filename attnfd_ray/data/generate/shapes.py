"""The outlines of toyscenes' objects, as masks. No torch.

Only additions, products and comparisons of numbers rounded beforehand decide about a pixel, so
masks are the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Plane = NDArray[np.float64]
Outline = Callable[[Plane, Plane], Mask]
"""Says which points (u, v) of the plane are inside; v points down, and the shape about fills the unit disc."""


def turned(size: int, centre: tuple[int, int], radius: int, degrees: int) -> tuple[Plane, Plane]:
    """Return u_HW, v_HW: where the pixels are for a shape at `centre` (x, y), so large and so
    turned.
    """
    y, x = np.mgrid[:size, :size].astype(np.float64) - np.array(centre[::-1]).reshape(2, 1, 1)
    cosine, sine = rounded_turn(degrees)
    return (x * cosine + y * sine) / radius, (y * cosine - x * sine) / radius


def rounded_turn(degrees: float) -> tuple[float, float]:
    """Return cosine and sine to six digits, on which all mathematics libraries agree."""
    return round(math.cos(math.radians(degrees)), 6), round(math.sin(math.radians(degrees)), 6)


def disc(u: Plane, v: Plane) -> Mask:
    """Return the unit disc."""
    return u * u + v * v <= 1


def ring(u: Plane, v: Plane) -> Mask:
    """Return a disc with a small hole: along its rim nothing tells it from a disc."""
    return disc(u, v) & (u * u + v * v > 0.16)


def ellipse(u: Plane, v: Plane) -> Mask:
    """Return a flat ellipse, the hull of a boat and of a plane."""
    return disc(u * 0.8, v * 1.6)


def cross(u: Plane, v: Plane) -> Mask:
    """Return two crossed bars."""
    across, along = np.abs(u), np.abs(v)
    return (np.maximum(across, along) <= 1) & (np.minimum(across, along) <= 0.36)


def arch(u: Plane, v: Plane) -> Mask:
    """Return a gate: a half ring on two legs."""

    def filled(a: Plane, b: Plane) -> Mask:
        return disc(a, b) | ((np.abs(a) <= 1) & (b > 0))

    return filled(u, v) & ~filled(u * 2, v * 2) & (v <= 0.9)


def polygon(sides: int, inner_radius: float) -> Outline:
    """Return the outline of a regular polygon; `inner_radius` is the distance of its sides from its
    centre.
    """
    normals = [rounded_turn(360 * side / sides) for side in range(sides)]

    def outline(u: Plane, v: Plane) -> Mask:
        inside: Mask = np.logical_and.reduce([u * a + v * b <= inner_radius for a, b in normals])
        return inside

    return outline


def blob(lobes: list[tuple[float, float]]) -> Outline:
    """Return a disc with further discs, centred at `lobes`, grown to it."""

    def outline(u: Plane, v: Plane) -> Mask:
        inside: Mask = np.logical_or.reduce(
            [disc((u - a) * 1.5, (v - b) * 1.5) for a, b in [(0.0, 0.0), *lobes]]
        )
        return inside

    return outline
