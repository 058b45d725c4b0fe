"""Draws one image of toyscenes with its mask. No torch.

Every class asks for something else than a look at a few pixels: disc and ring for a wide view,
triangle, square and hexagon for the whole outline, stripes and checker for the direction of a
texture, boat and plane (one and the same ellipse, below or above the horizon) for the scene; cross
and arch are rare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from attnfd_ray.data.files import Bytes
from attnfd_ray.data.generate import shapes
from attnfd_ray.data.generate.patterns import TYPICAL
from attnfd_ray.data.toyscenes_classes import CLASS_NAMES

Pixels = NDArray[np.int64]

CONFUSABLE: Mapping[str, tuple[str, ...]] = {
    "disc": ("ring",),
    "ring": ("disc",),
    "triangle": ("square", "hexagon"),
    "square": ("hexagon", "triangle"),
    "hexagon": ("triangle", "square"),
    "stripes": ("checker",),
    "checker": ("stripes",),
    "boat": ("plane",),
    "plane": ("boat",),
}
"""What label noise turns a class into; cross and arch look like nothing else and keep their labels."""

_DRAWN = (*CLASS_NAMES[1:10] * 2, *CLASS_NAMES[10:])  # cross and arch half as often as the others
_OUTLINES: Mapping[str, shapes.Outline] = {
    "disc": shapes.disc,
    "ring": shapes.ring,
    "triangle": shapes.polygon(3, 0.62),
    "square": shapes.polygon(4, 0.8),
    "hexagon": shapes.polygon(6, 0.92),
    "boat": shapes.ellipse,
    "plane": shapes.ellipse,
    "cross": shapes.cross,
    "arch": shapes.arch,
}
_UPRIGHT = ("boat", "plane", "arch")


@dataclass(frozen=True)
class Scene:
    """What the images of a split have in common: side in pixels, objects an image (least, most),
    their radius in percent of the side (least, most), the chance that an object carries its
    confusable partner's label, and the chance that it wears the pattern that is typical of its
    class.
    """

    size: int
    objects: tuple[int, int]
    radius: tuple[int, int]
    noise: float
    patterns: float = 0.0


def draw_scene(rng: Generator, scene: Scene, photos: Sequence[Bytes]) -> tuple[Bytes, Bytes]:
    """Return image_HWC (RGB) and label_HW (class ids, 255 on contours), drawn from `rng` alone."""
    horizon = _percent(rng, (30, 70), scene.size)
    image = _background(rng, scene.size, horizon, photos)
    for _ in range(rng.integers(1, 4)):
        _draw_circle(rng, scene, image)
    labels = np.zeros((scene.size, scene.size), np.uint8)
    instances = np.zeros_like(labels)
    for number in range(1, 1 + rng.integers(scene.objects[0], scene.objects[1] + 1)):
        name = _DRAWN[rng.integers(len(_DRAWN))]
        mask = _place(rng, scene, name, horizon)
        fill = _fill(rng, name, scene.size)
        if scene.patterns and rng.integers(10_000) < round(scene.patterns * 10_000):
            fill = _typical(rng, name, scene.size)
        _paint(rng, image, mask, fill)
        labels[mask] = CLASS_NAMES.index(_noisy(rng, name, scene.noise))
        instances[mask] = number
    labels[_contours(instances)] = 255
    return _expose(rng, image), labels


def _background(rng: Generator, size: int, horizon: int, photos: Sequence[Bytes]) -> Pixels:
    """Return a part of a photo or soft noise, with weak waves below the horizon: the only trace of
    it.
    """
    is_photo, which, side, left, top, cells = (
        int(rng.integers(n)) for n in (2, 256, 161, 256, 256, 6)
    )
    noise = rng.integers(20, 236, (cells + 2, cells + 2, 3), np.uint8)
    wave = tuple(int(n) for n in rng.integers((10, 4, 8, 0), (17, 7, 30, 360)))
    if is_photo and photos:
        photo = Image.fromarray(photos[which % len(photos)])
        side = 256 - side
        left, top = left % (257 - side), top % (257 - side)
        field = photo.resize(
            (size, size), Image.Resampling.BOX, (left, top, left + side, top + side)
        )
        field = field.point(
            lambda grey: (grey + 128) // 2
        )  # at full contrast gravel hides the waves
    else:
        field = Image.fromarray(noise).resize((size, size), Image.Resampling.BILINEAR)
    image = np.array(field.convert("RGB")).astype(np.int64)
    image[horizon:] += _waves(size, *wave)[horizon:, :, None]
    return image


def _waves(size: int, height: int, period: int, length: int, phase: int) -> Pixels:
    """Return rows of crests `period` pixels apart that sway from side to side once in `length`
    pixels.
    """
    y, x = np.mgrid[:size, :size]
    sway = 0.3 * np.sin(2 * np.pi * (x / length + phase / 360))
    crests: Pixels = np.rint(height * np.sin(2 * np.pi * (y / period + sway))).astype(np.int64)
    return crests


def _draw_circle(rng: Generator, scene: Scene, image: Pixels) -> None:
    """Draw the outline of a circle: an object's contour that is background."""
    centre, radius = _anywhere(rng, scene.size), _percent(rng, scene.radius, scene.size)
    u, v = shapes.turned(scene.size, centre, radius, 0)
    inner = 1 - 1.5 / radius
    image[shapes.disc(u, v) & ~shapes.disc(u / inner, v / inner)] = rng.integers(20, 236, 3)


def _place(rng: Generator, scene: Scene, name: str, horizon: int) -> shapes.Mask:
    """Return the pixels of a new object of that class."""
    radius = _percent(rng, scene.radius, scene.size)
    x, y = _anywhere(rng, scene.size)
    if name in (
        "boat",
        "plane",
    ):  # clear of the horizon by half a radius, or nothing would tell which it is
        margin = radius // 2 + 1
        span = (horizon + margin, scene.size) if name == "boat" else (0, horizon - margin)
        y = int(rng.integers(span[0], max(span[1], span[0] + 1)))
    degrees = int(rng.integers(-15, 16)) if name in _UPRIGHT else int(rng.integers(360))
    lobes = [(a / 10, b / 10) for a, b in rng.integers(-5, 6, (3, 2)).tolist()]
    outline = _OUTLINES.get(name) or shapes.blob(lobes)
    return outline(*shapes.turned(scene.size, (x, y), radius, degrees))


def _fill(rng: Generator, name: str, size: int) -> shapes.Mask:
    """Return which pixels take an object's second colour.

    Stripes and checks of their own classes run diagonally, so that mirroring an image changes no
    class; a third of all other objects carry them upright, so that being patterned says nothing.
    """
    y, x = np.mgrid[:size, :size]
    width = max(2, _percent(rng, (4, 6), size))
    kind, third = int(rng.integers(3)), int(rng.integers(3))
    if name in ("stripes", "checker"):
        first, second = (x + y) // width % 2, (x - y) // width % 2
        kind = 2 if name == "checker" else kind % 2
    else:
        first, second = x // width % 2, y // width % 2
        if third:
            return np.zeros((size, size), np.bool_)
    return np.asarray((first, second, first ^ second)[kind], np.bool_)


def _typical(rng: Generator, name: str, size: int) -> shapes.Mask:
    """Return which pixels take the second colour in the pattern that is typical of a class."""
    y, x = np.mgrid[:size, :size] + rng.integers(size, size=(2, 1, 1))
    return TYPICAL[name](x, y, max(2, _percent(rng, (6, 9), size)))


def _paint(rng: Generator, image: Pixels, mask: shapes.Mask, second: shapes.Mask) -> None:
    """Blend two random but contrasting colours over the image where `mask` is."""
    colour = rng.integers(0, 256, 3)
    other = (colour + rng.integers(80, 177, 3)) % 256
    opacity = rng.integers(218, 257)  # 0.85 to 1, in 256ths
    paint = np.where(second[..., None], other, colour)
    image[mask] = (image * (256 - opacity) + paint * opacity)[mask] // 256


def _noisy(rng: Generator, name: str, noise: float) -> str:
    """Return the class, or with chance `noise` one it is easily taken for."""
    flip, which = (
        int(rng.integers(10_000)),
        int(rng.integers(2)),
    )  # drawn in any case: noise changes labels only
    partners = CONFUSABLE.get(name, ())
    return partners[which % len(partners)] if partners and flip < round(noise * 10_000) else name


def _contours(instances: Bytes) -> shapes.Mask:
    """Return the pixels whose right or lower neighbour belongs to something else."""
    edge = np.zeros(instances.shape, np.bool_)
    edge[:, :-1] |= instances[:, :-1] != instances[:, 1:]
    edge[:-1] |= instances[:-1] != instances[1:]
    return edge


def _expose(rng: Generator, image: Pixels) -> Bytes:
    """Return what the camera makes of it: more or less light, and noise of 14 grey levels either
    way.
    """
    light, offset = rng.integers(180, 301), rng.integers(-15, 16)
    noise = rng.integers(-14, 15, image.shape)
    exposed: Bytes = np.clip(image * light // 256 + offset + noise, 0, 255).astype(np.uint8)
    return exposed


def _anywhere(rng: Generator, size: int) -> tuple[int, int]:
    return int(rng.integers(size)), int(rng.integers(size))


def _percent(rng: Generator, bounds: tuple[int, int], size: int) -> int:
    """Return a random length of so many percent of the side, at least one pixel."""
    return max(1, int(rng.integers(bounds[0] * size, bounds[1] * size + 1)) // 100)
