"""Traps of COCO and COCO-Stuff: in each test naive code is run and fails, and ours does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CocoDetection

from attnfd_ray.data.datasets.coco import COCO
from attnfd_ray.data.datasets.coco_json import CATEGORIES
from attnfd_ray.data.datasets.coco_stuff import COCOStuff
from attnfd_ray.data.datasets.rle import decode_rle
from attnfd_ray.data.datasets.voc import VOC

Make = Callable[..., Path]

# pycocotools 2.0.11 does not support NumPy 2's __array__ yet
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

CAT, PERSON = 17, 1


def shape(category: int, segmentation: Any, area: float, crowd: int = 0) -> dict[str, Any]:
    found = {
        "image_id": 9,
        "category_id": category,
        "iscrowd": crowd,
        "area": area,
        "segmentation": segmentation,
    }
    return {"id": category, **found}


LARGE = shape(PERSON, [[0, 0, 8, 0, 8, 8, 0, 8]], 5000)
SMALL = shape(CAT, [[2, 2, 6, 2, 6, 6, 2, 6]], 16)
CROWD = shape(PERSON, {"size": [8, 12], "counts": [0, 96]}, 96, crowd=1)


@pytest.fixture
def make_coco(tmp_path: Path) -> Make:
    """Write COCO with images 8 and 9 of val, 12x8 pixels, and annotations of 9 alone."""

    def make(*annotations: dict[str, Any]) -> Path:
        for folder in ("annotations", "val2017"):
            (tmp_path / folder).mkdir()
        images = [
            {"id": number, "file_name": f"{number}.jpg", "height": 8, "width": 12}
            for number in (9, 8)
        ]
        for image in images:
            Image.new("RGB", (12, 8)).save(tmp_path / f"val2017/{image['file_name']}")
        document = {"images": images, "annotations": list(annotations)}
        document["categories"] = [
            {"id": number, "name": name} for number, name in CATEGORIES.items()
        ]
        (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(document))
        return tmp_path

    return make


def detection(root: Path) -> CocoDetection:
    pytest.importorskip("pycocotools")
    return CocoDetection(str(root / "val2017"), str(root / "annotations/instances_val2017.json"))


def naive_map(root: Path, value: Callable[[dict[str, Any]], int], *, last_wins: bool) -> np.ndarray:
    """Paint the objects in the order of the file."""
    theirs = detection(root)
    values_HW = np.zeros((8, 12), int)
    for annotation in theirs[1][1]:
        free = (values_HW == 0) | last_wins
        values_HW[free & (theirs.coco.annToMask(annotation) > 0)] = value(annotation)
    return values_HW


def of_voc(annotation: dict[str, Any]) -> int:
    return {CAT: 8, PERSON: 15}[annotation["category_id"]]


def test_coco_has_images_without_annotations_and_no_semantic_map(make_coco: Make) -> None:
    def naive(root: Path) -> list[Any]:
        theirs = detection(root)
        return [theirs[index][1] for index in range(len(theirs))]

    root = make_coco(LARGE, SMALL)
    targets = naive(root)
    assert [type(target) for target in targets] == [list, list]
    assert [len(target) for target in targets] == [0, 2]
    ours = COCO(root, "val").checked()
    assert ours.ids == ["9"]
    assert set(ours.read(0)[1].unique().tolist()) == {0, 8, 15}


def test_a_category_of_coco_is_not_a_class_of_voc(make_coco: Make) -> None:
    root = make_coco(LARGE, SMALL)
    naive = naive_map(root, lambda annotation: annotation["category_id"], last_wins=True)
    assert VOC.class_names[naive[3, 3]] == "sheep"  # it is a cat
    assert VOC.class_names[COCO(root, "val").read(0)[1][3, 3]] == "cat"


@pytest.mark.parametrize(("order", "last_wins"), [((LARGE, SMALL), False), ((SMALL, LARGE), True)])
def test_a_small_object_is_hidden_where_the_order_of_the_file_decides(
    make_coco: Make, order: tuple[dict[str, Any], ...], last_wins: bool
) -> None:
    root = make_coco(*order)
    naive = naive_map(root, of_voc, last_wins=last_wins)
    assert set(naive[:, :8].ravel()) == {15}
    label = COCO(root, "val").read(0)[1]
    assert (label[3, 3], label[0, 0]) == (8, 15)


def test_a_crowd_is_not_an_object(make_coco: Make) -> None:
    root = make_coco(SMALL | {"area": 5000}, CROWD)
    naive = naive_map(root, of_voc, last_wins=False)
    assert naive[0, 11] == 15
    label = COCO(root, "val").read(0)[1]
    assert (label[3, 3], label[0, 11]) == (8, 255)


def naive_rows(runs: list[int], height: int, width: int) -> np.ndarray:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)


def naive_ones_first(runs: list[int], height: int, width: int) -> np.ndarray:
    return np.repeat(np.arange(len(runs)) % 2 == 0, runs).reshape(width, height).T


@pytest.mark.parametrize("naive", [naive_rows, naive_ones_first])
def test_runs_go_down_the_columns_and_start_with_zeros(
    naive: Callable[..., np.ndarray],
) -> None:
    mask_HW = np.zeros((3, 4), bool)
    mask_HW[:, 1] = True
    runs = [3, 3, 6]
    assert (naive(runs, 3, 4) != mask_HW).any()
    np.testing.assert_array_equal(decode_rle({"size": [3, 4], "counts": runs}, 3, 4), mask_HW)


# ---- COCO-Stuff


def naive_as_is(values_HW: np.ndarray) -> np.ndarray:
    return values_HW


def naive_reduced(values_HW: np.ndarray) -> np.ndarray:
    """Subtract 1 and drop 0, as for COCO-Stuff-10k, whose ids are one higher."""
    return values_HW - 1


@pytest.mark.parametrize(
    ("naive", "expected"),
    [(naive_as_is, ["person", "parking meter", None]), (naive_reduced, [None, "stop sign", None])],
)
def test_values_of_coco_stuff_have_holes_and_begin_at_0(
    tmp_path: Path, naive: Callable[[np.ndarray], np.ndarray], expected: list[str | None]
) -> None:
    values = np.array([[0, 12, 181, 255]], np.uint8)
    for folder, pixels in (
        ("val2017", np.zeros((1, 4, 3), np.uint8)),
        ("annotations/val2017", values),
    ):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(
            tmp_path / folder / ("9.png" if "annotations" in folder else "9.jpg")
        )

    def names(label_HW: np.ndarray) -> list[str | None]:
        return [
            COCOStuff.class_names[label] if label < 171 else None
            for label in label_HW[0, :3].tolist()
        ]

    label = COCOStuff(tmp_path, "val").read(0)[1].numpy()
    assert names(naive(values)) == expected
    assert names(label) == ["person", "stop sign", "wood"]
    assert (naive(values)[0, 3] == 255) == (naive is naive_as_is)  # 254, which is not ignored
    assert label[0, 3] == 255
