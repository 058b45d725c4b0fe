"""COCO 2017 with the classes of Pascal VOC. Masks are painted from the instances when read."""

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

_MIN_AREA_PX = 1000
_NEEDED = (
    "needed is COCO 2017: set data.root, and data.train_split and data.val_split to train and val"
)


class COCO(SegmentationDataset):
    """COCO 2017: `annotations/instances_{split}2017.json`, images in [images/]`{split}2017`.

    The 20 categories that Pascal VOC has become the classes 1..20; everything else is background.
    An image is used if its objects of these classes, crowds excluded, have more than 1000 pixels by
    the areas in the JSON. The released AttnFD code counts labelled pixels instead, which would need
    every mask painted first.

    Objects are painted in the order of falling area, so that small ones are on top. Crowds are
    IGNORED and under all objects. Polygons are filled by pycocotools where it is installed (`pip
    install attnfd-ray[coco]`), else by Pillow, which also paints the pixels on an object's edge:
    about 3 % more for an object 100 pixels wide.
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
        """Return the images that are used, in the order of the JSON.

        DataError if the JSON or the images are missing.
        """
        label = f"annotations/instances_{self.split}2017.json"
        if not (self.root / label).is_file():
            raise DataError(f"{self.root}: there is no {label}; {_NEEDED}")
        images = find_directory(self.root, f"{self.split}2017", f"images/{self.split}2017")
        scenes = [scene for scene in read_scenes(self.root / label) if _is_used(scene)]
        samples = [
            Sample(PurePosixPath(scene.file_name).stem, f"{images}/{scene.file_name}", label)
            for scene in scenes
        ]
        self._scenes = dict(zip(samples, scenes, strict=True))
        return samples

    def read_values(self, sample: Sample) -> Bytes:
        """Return values_HW, painted. DataError if an object's shape does not fit the image."""
        scene = self._scenes[sample]
        where = f"{self.root / sample.label}: image {scene.id}"
        self._check_size(where, sample, scene)
        values_HW = np.zeros((scene.height, scene.width), dtype=np.uint8)
        for instance in sorted(scene.instances, key=_painting_order):
            try:
                mask_HW = _mask_of(instance, scene.height, scene.width)
            except ValueError as error:
                raise DataError(f"{where} has {error}: unpack the annotations again") from None
            values_HW[mask_HW] = instance.label
            if instance.iscrowd:
                values_HW[mask_HW] = IGNORED
        return values_HW

    def _check_size(self, where: str, sample: Sample, scene: Scene) -> None:
        """Raise DataError if the image is not as large as the JSON says."""
        try:
            with Image.open(self.root / sample.image, formats=FORMATS) as image:
                width, height = image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return  # `read` reports a broken image
        if (height, width) != (scene.height, scene.width):
            raise DataError(
                f"{where} is {scene.width}x{scene.height}, but {sample.image} is "
                f"{width}x{height}; needed is the same size: check that they belong together"
            )


def find_directory(root: Path, *names: str) -> str:
    """Return the first of the names that is a directory under root. DataError if none is."""
    for name in names:
        if (root / name).is_dir():
            return name
    raise DataError(f"{root}: there is neither a directory {' nor '.join(names)}; {_NEEDED}")


def _is_used(scene: Scene) -> bool:
    areas = [instance.area for instance in scene.instances if not instance.iscrowd]
    return sum(areas) > _MIN_AREA_PX


def _painting_order(instance: Instance) -> tuple[bool, float]:
    """Sort crowds first, then by falling area: what is painted last is on top."""
    return (not instance.iscrowd, -instance.area)


def _mask_of(instance: Instance, height: int, width: int) -> Mask:
    """Return mask_HW of one object. ValueError describes what is wrong with its shape."""
    if not isinstance(instance.segmentation, list):
        return decode_rle(instance.segmentation, height, width)
    polygons = [_clipped(polygon, height, width) for polygon in instance.segmentation]
    if not polygons:
        raise ValueError("an object without a polygon; needed is at least one")
    return _fill(polygons, height, width)


def _clipped(polygon: Any, height: int, width: int) -> list[float]:
    """Return the polygon x0, y0, x1, y1, ... with its corners moved into the image.

    ValueError if these are not the corners of a polygon.
    """
    needed = "needed are x and y of at least 3 corners"
    if not isinstance(polygon, array):
        raise ValueError(f"a polygon that is not a list of numbers; {needed}")
    if len(polygon) % 2 or len(polygon) < 6:
        raise ValueError(f"a polygon of {len(polygon)} numbers; {needed}")
    if not all(map(math.isfinite, polygon)):
        raise ValueError(f"a polygon with a corner that is not finite; {needed}")
    # A corner far outside would cost pycocotools unlimited memory.
    corners = np.array(polygon).reshape(-1, 2).clip(0, (width, height))
    clipped: list[float] = corners.ravel().tolist()
    return clipped


def _fill(polygons: list[list[float]], height: int, width: int) -> Mask:
    """Return mask_HW of the pixels that any of the polygons covers."""
    tools = _pycocotools()
    if tools is not None:
        rle = tools.merge(tools.frPyObjects(polygons, height, width))
        filled: Mask = tools.decode(rle).astype(bool)
        return filled
    image = Image.new("1", (width, height))
    for polygon in polygons:
        ImageDraw.Draw(image).polygon(polygon, fill=1)
    return np.array(image)


@cache
def _pycocotools() -> Any:
    """Return pycocotools' mask module, or None if it is not installed."""
    try:
        from pycocotools import mask
    except ImportError:
        return None
    return mask
