"""Reads the instances in a COCO JSON that belong to classes of Pascal VOC. No torch."""

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
"""COCO's ids and names of the classes 1..20 of Pascal VOC, in VOC's order."""

_LABELS = {category: label for label, category in enumerate(CATEGORIES, start=1)}
_KEPT_KEYS = ("image_id", "category_id", "iscrowd", "area", "segmentation")
_UNPACK_AGAIN = "unpack the annotations again"
_MAX_PIXELS = 100_000_000


class Instance(NamedTuple):
    """One object: its class 1..20, whether it is a crowd, its area in pixels, and its shape."""

    label: int
    iscrowd: bool
    area: float
    segmentation: Any
    """A list of polygons, each an array x0, y0, x1, y1, ..., or an RLE. Not yet checked."""


class Scene(NamedTuple):
    """One image: id, file name, size in pixels, and its objects in the order of the file."""

    id: int
    file_name: str
    height: int
    width: int
    instances: list[Instance]


def read_scenes(path: Path) -> list[Scene]:
    """Return the images of a COCO JSON with their objects of `CATEGORIES`.

    DataError if the file is not COCO's, lacks a field, or names an image outside its directory.
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
            instance = _instance(f"{path}: an annotation of image {image_id}", annotation)
            by_id[image_id].instances.append(instance)
    return scenes


def _parse(path: Path) -> list[list[Any]]:
    """Return images, annotations and categories; an annotation of another class is None."""
    try:
        with path.open(encoding="utf-8") as file:
            document = json.load(file, object_hook=_without_unused)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check who may read data.root"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: is not JSON ({error}); {_UNPACK_AGAIN}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({type(error).__name__}); {_UNPACK_AGAIN}") from None
    return [
        _field(f"{path}: the JSON", document, key, list)
        for key in ("images", "annotations", "categories")
    ]


def _without_unused(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the used fields of a parsed object, so that the whole file is never in memory."""
    if "segmentation" not in record:
        return record
    # A tuple, because a category that is a list cannot be looked up in a dict.
    if record.get("category_id") not in tuple(CATEGORIES):
        return None
    slim = {key: record[key] for key in _KEPT_KEYS if key in record}
    if isinstance(slim["segmentation"], list):
        slim["segmentation"] = [_packed(polygon) for polygon in slim["segmentation"]]
    return slim


def _packed(polygon: Any) -> Any:
    """Return a list of numbers as an array, in a quarter of the memory; anything else unchanged."""
    try:
        return array("d", polygon)
    except (TypeError, OverflowError):
        return polygon


def _check_category(path: Path, category: Any) -> None:
    """Raise DataError if an id in `CATEGORIES` has another name in the file."""
    category_id = _field(f"{path}: a category", category, "id", int)
    if category_id in CATEGORIES and category.get("name") != CATEGORIES[category_id]:
        raise DataError(
            f"{path}: category {category_id} is {category.get('name')!r}; needed is "
            f"'{CATEGORIES[category_id]}', as in COCO 2017: set data.root to COCO itself"
        )


def _scene(path: Path, image: Any) -> Scene:
    image_id = _field(f"{path}: an image", image, "id", int)
    where = f"{path}: image {image_id}"
    name = _field(where, image, "file_name", str)
    if not _is_inside(name):
        raise DataError(
            f"{where} has the file name {name!r}; needed is a name inside the directory of the "
            "images"
        )
    height = _field(where, image, "height", int)
    width = _field(where, image, "width", int)
    if min(height, width) < 1 or height * width > _MAX_PIXELS:
        raise DataError(
            f"{where} is {width}x{height}; needed are at least 1 and at most {_MAX_PIXELS} "
            f"pixels: {_UNPACK_AGAIN}"
        )
    return Scene(image_id, name, height, width, [])


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return name.isprintable() and not path.is_absolute() and ".." not in path.parts


def _instance(where: str, annotation: Any) -> Instance:
    segmentation = _field(where, annotation, "segmentation", (list, dict))
    label = _LABELS[_field(where, annotation, "category_id", int)]  # `_without_unused` keeps these
    area = _field(where, annotation, "area", (int, float))
    if not 0 <= area < math.inf:
        raise DataError(
            f"{where} has the area {area}; needed is a number of pixels: {_UNPACK_AGAIN}"
        )
    iscrowd = bool(_field(where, annotation, "iscrowd", int))
    return Instance(label, iscrowd, area, segmentation)


def _field(
    where: str,
    record: Any,
    key: str,
    kind: type | tuple[type, ...],
) -> Any:
    """Return record[key]. DataError if it is missing or of another type."""
    if not isinstance(record, dict) or not isinstance(record.get(key), kind):
        raise DataError(
            f"{where} has no usable '{key}'; needed are instances as in COCO 2017: {_UNPACK_AGAIN}"
        )
    return record[key]
