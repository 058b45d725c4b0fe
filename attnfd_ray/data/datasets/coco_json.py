"""Reads the instances of a COCO JSON, and keeps of them what the classes of Pascal VOC need. No
torch.
"""

from __future__ import annotations

import json
import math
from array import array
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from attnfd_ray.errors import DataError

CATEGORIES = {
    5: "airplane",
    2: "bicycle",
    16: "bird",
    9: "boat",
    44: "bottle",
    6: "bus",
    3: "car",
    17: "cat",
    62: "chair",
    21: "cow",
    67: "dining table",
    18: "dog",
    19: "horse",
    4: "motorcycle",
    1: "person",
    64: "potted plant",
    20: "sheep",
    63: "couch",
    7: "train",
    72: "tv",
}
"""COCO's ids and names of the classes 1..20 of Pascal VOC, in their order."""

_LABELS = {category: label for label, category in enumerate(CATEGORIES, start=1)}
_KEPT = ("image_id", "category_id", "iscrowd", "area", "segmentation")
_AGAIN = "unpack the annotations again"
_MOST_PIXELS = 100_000_000


class Instance(NamedTuple):
    """One object: its class 1..20, whether it is a crowd, its area in pixels, and its shape as the
    file has it.
    """

    label: int
    iscrowd: bool
    area: float
    segmentation: Any
    """A list of polygons, each an array x0, y0, x1, y1, ...; or an RLE; nobody looked yet whether it is a good one."""


class Scene(NamedTuple):
    """One image: its id, its file's name, its size in pixels and the objects on it, in the order of
    the file.
    """

    id: int
    file_name: str
    height: int
    width: int
    instances: list[Instance]


def read_scenes(path: Path) -> list[Scene]:
    """Return the images of a COCO JSON with the objects of `CATEGORIES` on them.

    DataError if it is no such file, lacks what is needed, or an image's name leaves its directory.
    """
    images, annotations, categories = _parse(path)
    for category in categories:
        _check_category(path, category)
    scenes = [_scene(path, image) for image in images]
    by_id = {scene.id: scene for scene in scenes}
    for annotation in annotations:
        if annotation is None:  # of another class
            continue
        image_id = _field(f"{path}: an annotation", annotation, "image_id", int)
        if image_id in by_id:
            by_id[image_id].instances.append(
                _instance(f"{path}: an annotation of image {image_id}", annotation)
            )
    return scenes


def _parse(path: Path) -> list[list[Any]]:
    """Return images, annotations and categories; an annotation of another class is None."""
    try:
        with path.open(encoding="utf-8") as file:
            document = json.load(file, object_hook=_slim)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check who may read data.root"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = error if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise DataError(f"{path}: is no JSON ({reason}); {_AGAIN}") from None
    return [
        _field(f"{path}: the JSON", document, key, list)
        for key in ("images", "annotations", "categories")
    ]


def _slim(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return what is kept of an object as soon as it is parsed, so that the whole file is never in
    memory at once.
    """
    if "segmentation" not in record:
        return record
    if record.get("category_id") not in tuple(
        CATEGORIES
    ):  # a tuple can be asked for anything, a dict not for a list
        return None
    slim = {key: record[key] for key in _KEPT if key in record}
    if isinstance(slim["segmentation"], list):
        slim["segmentation"] = [_packed(polygon) for polygon in slim["segmentation"]]
    return slim


def _packed(polygon: Any) -> Any:
    """Return a list of numbers in a quarter of the memory, anything else as it is."""
    try:
        return array("d", polygon)
    except (TypeError, OverflowError):
        return polygon


def _check_category(path: Path, category: Any) -> None:
    """Raise DataError if the file means something else by an id that COCO uses for one of the
    classes.
    """
    category_id = _field(f"{path}: a category", category, "id", int)
    if category_id in CATEGORIES and category.get("name") != CATEGORIES[category_id]:
        raise DataError(
            f"{path}: category {category_id} is {category.get('name')!r}; needed is "
            f"'{CATEGORIES[category_id]}', as in "
            "COCO 2017: set data.root to COCO itself"
        )


def _scene(path: Path, image: Any) -> Scene:
    image_id = _field(f"{path}: an image", image, "id", int)
    where = f"{path}: image {image_id}"
    name = _field(where, image, "file_name", str)
    if (
        PurePosixPath(name).is_absolute()
        or ".." in PurePosixPath(name).parts
        or not name.isprintable()
    ):
        raise DataError(
            f"{where} has the file name {name!r}; needed is a name inside the directory of the "
            "images"
        )
    height, width = _field(where, image, "height", int), _field(where, image, "width", int)
    if min(height, width) < 1 or height * width > _MOST_PIXELS:
        raise DataError(
            f"{where} is {width}x{height}; needed are at least 1 and at most {_MOST_PIXELS} "
            f"pixels: {_AGAIN}"
        )
    return Scene(image_id, name, height, width, [])


def _instance(where: str, annotation: Any) -> Instance:
    segmentation = _field(where, annotation, "segmentation", (list, dict))
    label = _LABELS[
        _field(where, annotation, "category_id", int)
    ]  # others with a segmentation are gone by now
    area = _field(where, annotation, "area", (int, float))
    if not 0 <= area < math.inf:
        raise DataError(f"{where} has the area {area}; needed is a number of pixels: {_AGAIN}")
    return Instance(label, bool(_field(where, annotation, "iscrowd", int)), area, segmentation)


def _field(where: str, record: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    """Return record[key]; DataError if there is none or it is of another kind."""
    if not isinstance(record, dict) or not isinstance(record.get(key), kind):
        raise DataError(
            f"{where} has no usable '{key}'; needed are instances as in COCO 2017: {_AGAIN}"
        )
    return record[key]
