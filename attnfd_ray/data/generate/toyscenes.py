"""Writes toyscenes: a small made-up dataset, laid out as Pascal VOC, for demos and tests. No torch.

An image depends on (seed, split, its number) and the knobs, not on how many there are. Masks are
the same on every machine; images too, up to the JPEG encoder.
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
"""Counts the changes to what is drawn; a set of another number is another set."""

MANIFEST = "toyscenes.json"
_HOME = "VOCdevkit/VOC2012"


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
    """Write the set to `root`, all of it or nothing; return False if this very set is there
    already.

    `size` is the side in pixels, `train` and `val` are numbers of images, `objects` are the least
    and most an image, `radius` theirs in percent of the side, and `noise` is the share of train
    objects that carry the label of the class they are easily taken for (val labels are always
    right). DataError if `root` holds anything else, or for a knob out of range.
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
    try:
        if _is_there(root, knobs):
            return False
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as aside:
            made = Path(aside) / "made"
            for split_id, (split, count) in enumerate({"train": train, "val": val}.items()):
                scene = Scene(size, objects, radius, noise if split == "train" else 0.0, patterns)
                _write_split(made / _HOME, split, count, scene, [seed, split_id])
            (made / MANIFEST).write_text(json.dumps(knobs, indent=1) + "\n", encoding="utf-8")
            made.rename(root)
    except OSError as error:
        if root.is_dir() and _is_there(root, knobs):  # someone else was faster with the same
            return False
        raise DataError(f"{root}: cannot be written ({error}); choose another directory") from None
    return True


def _write_split(home: Path, split: str, count: int, scene: Scene, seed: list[int]) -> None:
    images, masks, lists = (
        home / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
    )
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
    """Return the photos that come with the package, RGB, in the order of their names."""
    folder = resources.files("attnfd_ray.data.generate") / "photos"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".jpg")),
        key=lambda file: file.name,
    )
    photos = []
    for file in files:
        with file.open("rb") as stream, Image.open(stream) as photo:
            photos.append(np.array(photo.convert("RGB")))
    return photos


def _is_there(root: Path, knobs: dict[str, object]) -> bool:
    """Return whether `root` holds this set; DataError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    needed = "needed is a new or empty directory: remove this one or choose another"
    try:
        found = {"patterns": 0.0} | dict(
            json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        )  # new since 1
    except (OSError, ValueError, TypeError):
        raise DataError(f"{root}: is there and holds no toyscenes; {needed}") from None
    differs = [
        f"{key} {found.get(key)}, not {value}"
        for key, value in knobs.items()
        if found.get(key) != value
    ]
    if differs:
        raise DataError(f"{root}: holds other toyscenes ({'; '.join(differs)}); {needed}")
    return True


def _check(
    size: int,
    counts: tuple[int, int],
    seed: int,
    shares: Mapping[str, float],
    objects: tuple[int, int],
    radius: tuple[int, int],
) -> None:
    rules = {
        f"size {size} is not 32..1024 pixels": 32 <= size <= 1024,
        f"train {counts[0]} and val {counts[1]} are not 1..99999 images": all(
            1 <= n <= 99_999 for n in counts
        ),
        f"seed {seed} is negative": seed >= 0,
        **{f"{name} {share} is not 0..1": 0 <= share <= 1 for name, share in shares.items()},
        f"objects {objects} are not two rising numbers in 1..50": 1
        <= objects[0]
        <= objects[1]
        <= 50,
        f"radius {radius} is not two rising percentages in 5..40": 5
        <= radius[0]
        <= radius[1]
        <= 40,
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise DataError(f"toyscenes: {'; '.join(broken)}")
