"""Draws one image of toyscenes with its mask. No torch.

No class can be recognised by a few pixels alone. Disc and ring need a wide view; triangle, square
and hexagon the whole outline; stripes and checker the direction of a texture. Boat and plane are
the same ellipse, below or above the horizon, and need the scene. Cross and arch are rare.
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
"""Class -> the classes that label noise replaces it by; cross and arch keep their labels."""

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
_PHOTO_SIDE = 256  # the short side of the photos
_UPRIGHT = ("boat", "plane", "arch")
_CHANCE_STEPS = 10_000  # chances are compared as whole numbers


@dataclass(frozen=True)
class Scene:
    """What the images of a split share. Ranges are (least, most).

    `size` is the side in pixels, `objects` the number of objects an image, `radius` theirs in
    percent of the side. `noise` is the chance (0..1) that an object has the label of its confusable
    partner, `patterns` the chance that it has the pattern typical of its class.
    """

    size: int
    objects: tuple[int, int]
    radius: tuple[int, int]
    noise: float
    patterns: float = 0.0


def draw_scene(
    rng: Generator,
    scene: Scene,
    photos: Sequence[Bytes],
) -> tuple[Bytes, Bytes]:
    """Return image_HWC (RGB) and label_HW (class ids, 255 on contours), drawn from `rng` alone."""
    horizon = _percent(rng, (30, 70), scene.size)
    image = _background(rng, scene.size, horizon, photos)
    for _ in range(rng.integers(1, 4)):
        _draw_circle(rng, scene, image)
    labels = np.zeros((scene.size, scene.size), np.uint8)
    instances = np.zeros_like(labels)
    least, most = scene.objects
    num_objects = int(rng.integers(least, most + 1))
    for number in range(1, num_objects + 1):
        name = _DRAWN[rng.integers(len(_DRAWN))]
        mask = _object_mask(rng, scene, name, horizon)
        fill = _fill(rng, name, scene.size)
        # Without patterns no number is drawn for them.
        if scene.patterns and _happens(rng, scene.patterns):
            fill = _typical(rng, name, scene.size)
        _paint(rng, image, mask, fill)
        labels[mask] = CLASS_NAMES.index(_noisy(rng, name, scene.noise))
        instances[mask] = number
    labels[_contours(instances)] = 255
    return _expose(rng, image), labels


def _background(
    rng: Generator,
    size: int,
    horizon: int,
    photos: Sequence[Bytes],
) -> Pixels:
    """Return part of a photo or soft noise; only weak waves below the horizon show where it is."""
    # All numbers are drawn in any case: the rest of the image must not depend on the photos.
    is_photo = int(rng.integers(2))
    which = int(rng.integers(256))
    side = _PHOTO_SIDE - int(rng.integers(161))
    left = int(rng.integers(256))
    top = int(rng.integers(256))
    num_cells = int(rng.integers(6)) + 2
    noise = rng.integers(20, 236, (num_cells, num_cells, 3), np.uint8)
    waves = _waves(rng, size)
    if is_photo and photos:
        num_offsets = _PHOTO_SIDE - side + 1
        left %= num_offsets
        top %= num_offsets
        box = (left, top, left + side, top + side)
        photo = Image.fromarray(photos[which % len(photos)])
        field = photo.resize((size, size), Image.Resampling.BOX, box)
        # At full contrast, gravel would hide the waves.
        field = field.point(lambda grey: (grey + 128) // 2)
    else:
        field = Image.fromarray(noise).resize((size, size), Image.Resampling.BILINEAR)
    image = np.array(field.convert("RGB")).astype(np.int64)
    image[horizon:] += waves[horizon:, :, None]
    return image


def _waves(rng: Generator, size: int) -> Pixels:
    """Return crests `period` pixels apart that sway sideways once in `length` pixels."""
    least = (10, 4, 8, 0)
    below = (17, 7, 30, 360)
    height, period, length, phase = rng.integers(least, below).tolist()
    y, x = np.mgrid[:size, :size]
    sway = 0.3 * np.sin(2 * np.pi * (x / length + phase / 360))
    wave = height * np.sin(2 * np.pi * (y / period + sway))
    crests: Pixels = np.rint(wave).astype(np.int64)
    return crests


def _draw_circle(rng: Generator, scene: Scene, image: Pixels) -> None:
    """Draw the outline of a circle: a distractor that looks like a contour and is background."""
    centre = _anywhere(rng, scene.size)
    radius = _percent(rng, scene.radius, scene.size)
    u, v = shapes.turned(scene.size, centre, radius, 0)
    inner = 1 - 1.5 / radius
    outline = shapes.disc(u, v) & ~shapes.disc(u / inner, v / inner)
    image[outline] = rng.integers(20, 236, 3)


def _object_mask(
    rng: Generator,
    scene: Scene,
    name: str,
    horizon: int,
) -> shapes.Mask:
    """Return the pixels of a new object of a class."""
    radius = _percent(rng, scene.radius, scene.size)
    x, y = _anywhere(rng, scene.size)
    # Clear of the horizon by half a radius, or boat and plane would look the same.
    margin = radius // 2 + 1
    if name == "boat":
        y = _between(rng, horizon + margin, scene.size)
    if name == "plane":
        y = _between(rng, 0, horizon - margin)
    degrees = int(rng.integers(-15, 16) if name in _UPRIGHT else rng.integers(360))
    lobes = rng.integers(-5, 6, (3, 2)) / 10
    outline = _OUTLINES.get(name) or shapes.blob(lobes.tolist())
    u, v = shapes.turned(scene.size, (x, y), radius, degrees)
    return outline(u, v)


def _fill(rng: Generator, name: str, size: int) -> shapes.Mask:
    """Return which pixels take an object's second colour.

    The classes stripes and checker have diagonal patterns, so that mirroring an image changes no
    class. A third of all other objects have upright ones, so that a pattern alone is no evidence.
    """
    y, x = np.mgrid[:size, :size]
    width = max(2, _percent(rng, (4, 6), size))
    kind = int(rng.integers(3))
    is_patterned = int(rng.integers(3)) == 0
    if name in ("stripes", "checker"):
        first = (x + y) // width % 2
        second = (x - y) // width % 2
    elif is_patterned:
        first = x // width % 2
        second = y // width % 2
    else:
        return np.zeros((size, size), np.bool_)
    checks = first ^ second
    if name == "checker":
        chosen = checks
    elif name == "stripes":
        chosen = (first, second)[kind % 2]
    else:
        chosen = (first, second, checks)[kind]
    return np.asarray(chosen, np.bool_)


def _typical(rng: Generator, name: str, size: int) -> shapes.Mask:
    """Return which pixels take the second colour in the pattern that is typical of a class."""
    shift = rng.integers(size, size=(2, 1, 1))
    y, x = np.mgrid[:size, :size] + shift
    width = max(2, _percent(rng, (6, 9), size))
    return TYPICAL[name](x, y, width)


def _paint(
    rng: Generator,
    image: Pixels,
    mask: shapes.Mask,
    second: shapes.Mask,
) -> None:
    """Blend two random, contrasting colours over the image where `mask` is."""
    colour = rng.integers(0, 256, 3)
    other = (colour + rng.integers(80, 177, 3)) % 256
    opacity = rng.integers(218, 257)  # 0.85 to 1, in 256ths
    paint = np.where(second[..., None], other, colour)
    blended = image * (256 - opacity) + paint * opacity
    image[mask] = blended[mask] // 256


def _noisy(rng: Generator, name: str, noise: float) -> str:
    """Return the class, or with chance `noise` one that it is confused with."""
    # Both numbers are drawn in any case, so that noise changes nothing but labels.
    is_noisy = _happens(rng, noise)
    which = int(rng.integers(2))
    partners = CONFUSABLE.get(name, ())
    if partners and is_noisy:
        return partners[which % len(partners)]
    return name


def _contours(instances: Bytes) -> shapes.Mask:
    """Return the pixels whose right or lower neighbour belongs to another object."""
    edge = np.zeros(instances.shape, np.bool_)
    differs_from_right = instances[:, :-1] != instances[:, 1:]
    differs_from_below = instances[:-1] != instances[1:]
    edge[:, :-1] |= differs_from_right
    edge[:-1] |= differs_from_below
    return edge


def _expose(rng: Generator, image: Pixels) -> Bytes:
    """Return the image with random exposure, and noise of up to 14 grey levels either way."""
    light = rng.integers(180, 301)
    offset = rng.integers(-15, 16)
    noise = rng.integers(-14, 15, image.shape)
    exposed = image * light // 256 + offset + noise
    clipped: Bytes = np.clip(exposed, 0, 255).astype(np.uint8)
    return clipped


def _happens(rng: Generator, chance: float) -> bool:
    """Return true with this chance, 0..1."""
    return bool(rng.integers(_CHANCE_STEPS) < round(chance * _CHANCE_STEPS))


def _anywhere(rng: Generator, size: int) -> tuple[int, int]:
    x = int(rng.integers(size))
    y = int(rng.integers(size))
    return x, y


def _between(rng: Generator, low: int, high: int) -> int:
    """Return a random number from `low` to below `high`; `low` if there is none."""
    return int(rng.integers(low, max(high, low + 1)))


def _percent(rng: Generator, bounds: tuple[int, int], size: int) -> int:
    """Return a random length between two percentages of the side, at least one pixel."""
    least, most = bounds
    hundredths = int(rng.integers(least * size, most * size + 1))
    return max(1, hundredths // 100)
