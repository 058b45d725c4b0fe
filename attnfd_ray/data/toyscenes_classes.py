"""The class names of toyscenes, shared by its generator and its dataset. No torch."""

from __future__ import annotations

CLASS_NAMES = (
    "background",
    "disc",
    "ring",
    "triangle",
    "square",
    "hexagon",
    "stripes",
    "checker",
    "boat",
    "plane",
    "cross",
    "arch",
)
