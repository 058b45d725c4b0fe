"""Writes toyscenes: a small synthetic dataset in the layout of Pascal VOC, for demos and tests.

An image depends on (seed, split, its number) and the knobs, not on the number of images. Masks are
the same on every machine. Images are too, up to the JPEG encoder. No torch.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from attnfd_ray.data.files import Bytes
from attnfd_ray.data.generate.scenes import Scene, draw_scene
from attnfd_ray.data.palette import voc_colormap
from attnfd_ray.errors import DataError

GENERATOR = 1
"""Counts the changes to what is drawn. Sets with different numbers are different sets."""

MANIFEST = "toyscenes.json"
_HOME = "VOCdevkit/VOC2012"
_KNOBS_OF_OLD_MANIFESTS = {"patterns": 0.0}


def write_toyscenes(
    root: str | Path,
    *,
    size: int = 64,
    train: int = 400,
    val: int = 100,
    seed: int = 0,
    noise: float = 0.1,
    patterns: float = 0.0,
    objects: tuple[int, int] = (3, 6),
    radius: tuple[int, int] = (10, 21),
) -> bool:
    """Write the set to `root`, all of it or nothing. Return False if this set exists already.

    `size` is the side in pixels; `train` and `val` are numbers of images; `objects` are the least
    and most objects an image, `radius` theirs in percent of the side. `noise` is the share of train
    objects that have the label of a class they are confused with; val labels are always right.
    `patterns` is the share of objects with a pattern typical of their class. DataError if `root`
    holds anything else, or for a knob out of range.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_toyscenes(root, size=32, train=2, val=1)
    ...     write_toyscenes(root, size=32, train=2, val=1)
    True
    False
    """
    knobs = {
        "generator": GENERATOR,
        "size": size,
        "train": train,
        "val": val,
        "seed": seed,
        "noise": noise,
        "patterns": patterns,
        "objects": list(objects),
        "radius": list(radius),
    }
    _check(size, (train, val), seed, {"noise": noise, "patterns": patterns}, objects, radius)
    root = Path(root).expanduser()
    scenes = {
        "train": Scene(size, objects, radius, noise, patterns),
        "val": Scene(size, objects, radius, 0.0, patterns),
    }
    counts = {"train": train, "val": val}
    try:
        if _holds_set(root, knobs):
            return False
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
            made = Path(temporary) / "made"
            for split_id, (split, scene) in enumerate(scenes.items()):
                _write_split(made / _HOME, split, counts[split], scene, [seed, split_id])
            (made / MANIFEST).write_text(json.dumps(knobs, indent=1) + "\n", encoding="utf-8")
            made.rename(root)
    except OSError as error:
        if root.is_dir() and _holds_set(root, knobs):  # another process wrote the same set first
            return False
        raise DataError(f"{root}: cannot be written ({error}); choose another directory") from None
    return True


def _write_split(
    home: Path,
    split: str,
    count: int,
    scene: Scene,
    seed: list[int],
) -> None:
    images = home / "JPEGImages"
    masks = home / "SegmentationClass"
    lists = home / "ImageSets/Segmentation"
    for directory in (images, masks, lists):
        directory.mkdir(parents=True, exist_ok=True)
    photos = _photos()
    palette = [value for colour in voc_colormap() for value in colour]
    ids = [f"{split}_{index:05d}" for index in range(count)]
    for index, name in enumerate(ids):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([*seed, index])))
        image_HWC, label_HW = draw_scene(rng, scene, photos)
        Image.fromarray(image_HWC).save(images / f"{name}.jpg", quality=92, subsampling="4:4:4")
        mask = Image.fromarray(label_HW)
        mask.putpalette(palette)
        mask.save(masks / f"{name}.png")
    (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")


def _photos() -> list[Bytes]:
    """Return the photos of the package, RGB, in the order of their names."""
    folder = resources.files("attnfd_ray.data.generate") / "photos"
    files = [file for file in folder.iterdir() if file.name.endswith(".jpg")]
    photos = []
    for file in sorted(files, key=lambda file: file.name):
        with file.open("rb") as stream, Image.open(stream) as photo:
            photos.append(np.array(photo.convert("RGB")))
    return photos


def _holds_set(root: Path, knobs: Mapping[str, object]) -> bool:
    """Return whether `root` holds this set. DataError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    needed = "needed is a new or empty directory: remove this one or choose another"
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        found = _KNOBS_OF_OLD_MANIFESTS | dict(manifest)
    except (OSError, ValueError, TypeError):
        raise DataError(f"{root}: exists and holds no toyscenes; {needed}") from None
    differences = [
        f"{key} {found.get(key)}, not {value}"
        for key, value in knobs.items()
        if found.get(key) != value
    ]
    if differences:
        raise DataError(f"{root}: holds other toyscenes ({'; '.join(differences)}); {needed}")
    return True


def _check(
    size: int,
    counts: tuple[int, int],
    seed: int,
    shares: Mapping[str, float],
    objects: tuple[int, int],
    radius: tuple[int, int],
) -> None:
    """Raise DataError with every knob that is out of range."""
    train, val = counts
    broken = []
    if not 32 <= size <= 1024:
        broken.append(f"size {size} is not 32..1024 pixels")
    if not (1 <= train <= 99_999 and 1 <= val <= 99_999):
        broken.append(f"train {train} and val {val} are not 1..99999 images")
    if seed < 0:
        broken.append(f"seed {seed} is negative")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            broken.append(f"{name} {share} is not 0..1")
    if not 1 <= objects[0] <= objects[1] <= 50:
        broken.append(f"objects {objects} are not two rising numbers in 1..50")
    if not 5 <= radius[0] <= radius[1] <= 40:
        broken.append(f"radius {radius} is not two rising percentages in 5..40")
    if broken:
        raise DataError(f"toyscenes: {'; '.join(broken)}")
