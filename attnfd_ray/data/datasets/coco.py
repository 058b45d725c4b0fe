"""COCO 2017 with the classes of Pascal VOC, its masks painted from the instances when they are
read.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.datasets.base import Sample, SegmentationDataset
from attnfd_ray.data.datasets.coco_json import Instance, Scene, read_scenes
from attnfd_ray.data.datasets.rle import Mask, decode_rle
from attnfd_ray.data.datasets.voc import VOC
from attnfd_ray.data.files import FORMATS, Bytes
from attnfd_ray.data.palette import Colour
from attnfd_ray.errors import DataError

_LEAST_AREA_PX = 1000


class COCO(SegmentationDataset):
    """COCO 2017: `annotations/instances_{split}2017.json`, images in `{split}2017` or
    `images/{split}2017`.

    Its 20 categories that Pascal VOC has are the classes 1..20, everything else is background. An
    image counts if its objects of these classes, crowds aside, have more than 1000 pixels by the
    areas in the JSON; the released AttnFD code counts labelled pixels, for which every mask would
    have to be painted first.

    Objects are painted by falling area, so that a small one is on top; crowds are IGNORED, under
    everything. Polygons are filled by pycocotools where it is installed (`pip install
    attnfd-ray[coco]`), else by Pillow, which also paints the pixels on an object's edge: some 3 %
    more of an object 100 pixels wide.
    """

    class_names: tuple[str, ...] = VOC.class_names
    palette: tuple[Colour, ...] = VOC.palette
    unread: Sequence[str] = (
        "annotations/[!i]*",
        "annotations/image_info_*",
        "annotations/*/*",
        "stuffthingmaps/*",
    )

    def list_samples(self) -> Sequence[Sample]:
        """Return the images that count, in the order of the JSON; DataError without JSON or
        images.
        """
        label = f"annotations/instances_{self.split}2017.json"
        if not (self.root / label).is_file():
            raise DataError(
                f"{self.root}: there is no {label}; needed is COCO 2017: set data.root, and "
                "data.train_split and "
                "data.val_split to train and val"
            )
        images = find_directory(self.root, f"{self.split}2017", f"images/{self.split}2017")
        scenes = [scene for scene in read_scenes(self.root / label) if _counts(scene)]
        samples = [
            Sample(PurePosixPath(s.file_name).stem, f"{images}/{s.file_name}", label)
            for s in scenes
        ]
        self._scenes = dict(zip(samples, scenes, strict=True))
        return samples

    def read_values(self, sample: Sample) -> Bytes:
        """Return values_HW, painted; DataError if an object's shape is not usable or not of this
        image.
        """
        scene = self._scenes[sample]
        where = f"{self.root / sample.label}: image {scene.id}"
        self._check_size(where, sample, scene)
        values_HW = np.zeros((scene.height, scene.width), dtype=np.uint8)
        for instance in sorted(scene.instances, key=lambda found: (not found.iscrowd, -found.area)):
            try:
                mask_HW = _mask_of(instance, scene.height, scene.width)
            except ValueError as error:
                raise DataError(f"{where} has {error}: unpack the annotations again") from None
            values_HW[mask_HW] = IGNORED if instance.iscrowd else instance.label
        return values_HW

    def _check_size(self, where: str, sample: Sample, scene: Scene) -> None:
        """Raise DataError if the image is there and not as large as the JSON says."""
        try:
            with Image.open(self.root / sample.image, formats=FORMATS) as image:
                width, height = image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return  # `read` tells what is wrong with the image
        if (height, width) != (scene.height, scene.width):
            raise DataError(
                f"{where} is {scene.width}x{scene.height}, but {sample.image} is "
                f"{width}x{height}; needed is the same "
                "size: check that they belong together"
            )


def find_directory(root: Path, *names: str) -> str:
    """Return the first of the names that is a directory under root; DataError if none is."""
    for name in names:
        if (root / name).is_dir():
            return name
    raise DataError(
        f"{root}: there is neither a directory {' nor '.join(names)}; needed is COCO 2017: set "
        "data.root, and "
        "data.train_split and data.val_split to train and val"
    )


def _counts(scene: Scene) -> bool:
    return (
        sum(instance.area for instance in scene.instances if not instance.iscrowd) > _LEAST_AREA_PX
    )


def _mask_of(instance: Instance, height: int, width: int) -> Mask:
    """Return mask_HW of one object; ValueError says in words what is wrong with its shape."""
    if not isinstance(instance.segmentation, list):
        return decode_rle(instance.segmentation, height, width)
    polygons = [_inside(polygon, height, width) for polygon in instance.segmentation]
    if not polygons:
        raise ValueError("an object without a polygon; needed is at least one")
    return _fill(polygons, height, width)


def _inside(polygon: Any, height: int, width: int) -> list[float]:
    """Return x0, y0, x1, y1, ... moved to the image where they leave it; ValueError if these are no
    corners.
    """
    needed = "needed are x and y of at least 3 corners"
    if not isinstance(polygon, array):
        raise ValueError(f"a polygon that is no list of numbers; {needed}")
    if len(polygon) % 2 or len(polygon) < 6:
        raise ValueError(f"a polygon of {len(polygon)} numbers; {needed}")
    if not all(map(math.isfinite, polygon)):
        raise ValueError(f"a polygon with a corner at infinity or nowhere; {needed}")
    # far outside, a corner costs pycocotools memory without end
    return [min(max(value, 0.0), (width, height)[place % 2]) for place, value in enumerate(polygon)]


def _fill(polygons: list[list[float]], height: int, width: int) -> Mask:
    """Return mask_HW of what any of the polygons covers."""
    coco = _pycocotools()
    if coco is not None:
        filled: Mask = coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))).astype(
            bool
        )
        return filled
    image = Image.new("1", (width, height))
    for polygon in polygons:
        ImageDraw.Draw(image).polygon(polygon, fill=1)
    return np.array(image)


@cache
def _pycocotools() -> Any:
    """Return pycocotools' masks, or None where it is not installed."""
    try:
        from pycocotools import mask
    except ImportError:
        return None
    return mask
