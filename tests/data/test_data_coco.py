"""COCO with the classes of Pascal VOC: painted masks, used images, refused files."""

import json
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.datasets import coco
from attnfd_ray.data.datasets.base import open_dataset
from attnfd_ray.data.datasets.coco import COCO
from attnfd_ray.data.datasets.coco_json import CATEGORIES
from attnfd_ray.data.datasets.rle import decode_rle
from attnfd_ray.data.datasets.voc import VOC
from attnfd_ray.errors import DataError

# pycocotools 2.0.11 does not support NumPy 2's __array__ yet
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

StrictModel = dict[str, Any]
PERSON, CAR, CAT, PIZZA = 1, 3, 17, 59
BIG = 5000  # pixels, enough for an image to be used


def message(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def encode(mask_HW: np.ndarray) -> list[int]:
    """Return the lengths of runs, straight from the definition, pixel by pixel."""
    runs, value = [0], 0
    for pixel in np.asarray(mask_HW).T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def compress(runs: list[int]) -> str:
    text = ""
    for index, run in enumerate(runs):
        number = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits, number = number & 31, number >> 5
            more = number != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def box(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def annotation(
    category: int, segmentation: Any, *, area: float = BIG, image: int = 9, crowd: int = 0
) -> StrictModel:
    return {
        "id": 1,
        "image_id": image,
        "category_id": category,
        "iscrowd": crowd,
        "area": area,
        "segmentation": segmentation,
    }


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write COCO with one image of 12x8 pixels a split; val's has number 9 and the annotations."""

    def make(*annotations: StrictModel, home: str = "", **changes: Any) -> Path:
        (tmp_path / "annotations").mkdir(exist_ok=True)
        for split, number, found in (
            ("train", 8, [annotation(CAT, box(0, 0, 6, 8), image=8)]),
            ("val", 9, list(annotations)),
        ):
            folder = tmp_path / f"{home}{split}2017"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 8), (number, 0, 0)).save(folder / f"{number:012d}.jpg")
            document: StrictModel = {
                "images": [
                    {
                        "id": number,
                        "file_name": f"{number:012d}.jpg",
                        "height": 8,
                        "width": 12,
                        "license": 1,
                    }
                ],
                "annotations": found,
                "categories": [{"id": i, "name": n} for i, n in CATEGORIES.items()]
                + [{"id": PIZZA, "name": "pizza"}],
            }
            if split == "val":
                document = {
                    key: value for key, value in (document | changes).items() if value is not None
                }
            (tmp_path / f"annotations/instances_{split}2017.json").write_text(json.dumps(document))
        return tmp_path

    return make


def values(root: Path) -> np.ndarray:
    return COCO(root, "val").read(0)[1].numpy()


# ---- runs


@pytest.mark.parametrize(
    ("counts", "mask"),
    [
        ([12], ["0000", "0000", "0000"]),
        ([0, 12], ["1111", "1111", "1111"]),
        ([0, 1, 6, 2, 3], ["1000", "0010", "0010"]),  # down the columns
        (
            "0161M",
            ["1000", "0010", "0010"],
        ),  # 0, 1, 6, then 2 - 1 = 1 and 3 - 6 = -3, which is 11101 with its sign
        ([5, 2, 5], ["0010", "0000", "0100"]),
        ("525", ["0010", "0000", "0100"]),  # the third run is not a difference yet
    ],
)
def test_runs_start_with_zeros_and_go_down_the_columns(counts: object, mask: list[str]) -> None:
    expected = np.array([[pixel == "1" for pixel in row] for row in mask])
    np.testing.assert_array_equal(decode_rle({"size": [3, 4], "counts": counts}, 3, 4), expected)


def test_numbers_above_fifteen_take_more_characters() -> None:
    # 1000 is 11111 01000 in groups of five bits: first 01000 with 0x20, as more follow; then 11111
    # with 0x20, as its highest bit would be the sign.
    assert compress([1000]) == "Xo0"
    assert not decode_rle({"size": [10, 100], "counts": "Xo0"}, 10, 100).any()


MASKS = arrays.arrays(
    bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()
)


@hypothesis_settings(deadline=None)  # other work may share the machine
@given(MASKS)
def test_every_mask_comes_back_from_both_kinds_of_runs(mask_HW: np.ndarray) -> None:
    size = list(mask_HW.shape)
    for counts in (encode(mask_HW), compress(encode(mask_HW))):
        np.testing.assert_array_equal(
            decode_rle({"size": size, "counts": counts}, *mask_HW.shape), mask_HW
        )


@hypothesis_settings(deadline=None)  # other work may share the machine
@given(MASKS)
def test_pycocotools_writes_what_we_read(mask_HW: np.ndarray) -> None:
    tools = pytest.importorskip("pycocotools.mask")
    rle = tools.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
    np.testing.assert_array_equal(
        decode_rle({"size": rle["size"], "counts": rle["counts"].decode()}, *mask_HW.shape), mask_HW
    )


@hypothesis_settings(deadline=None)  # other work may share the machine
@given(
    st.text(max_size=12)
    | st.lists(st.integers() | st.floats() | st.none(), max_size=6)
    | st.integers()
)
def test_any_other_counts_are_refused_or_add_up_to_the_image(counts: object) -> None:
    with suppress(ValueError):
        assert decode_rle({"size": [4, 4], "counts": counts}, 4, 4).shape == (4, 4)


# ---- what is painted


def test_the_contract_of_a_dataset_holds(make: Callable[..., Path]) -> None:
    data = DataSettings(name="coco", root=str(make(annotation(CAT, box(2, 2, 6, 6)))), crop=(8, 8))
    for split in ("train", "val"):
        dataset = open_dataset(data, split=split)
        image, label = dataset.read(0)
        assert image.dtype == label.dtype == torch.uint8
        assert image.shape == (3, *label.shape) == (3, 8, 12)
        assert image.permute(1, 2, 0).is_contiguous()  # channels last, as resizing is fastest
        assert set(label.unique().tolist()) == {0, 8}
        assert (
            len(dataset.class_names) == len(set(dataset.class_names)) == dataset.num_classes == 21
        )
        assert len(dataset.palette) == len(set(dataset.palette)) == 21
        assert len(dataset.fingerprint()) == 16


def test_the_categories_are_those_of_pascal_voc_in_their_order() -> None:
    theirs = ["aeroplane", "diningtable", "motorbike", "pottedplant", "sofa", "tvmonitor"]
    ours = ["airplane", "dining table", "motorcycle", "potted plant", "couch", "tv"]
    names = [dict(zip(ours, theirs, strict=True)).get(name, name) for name in CATEGORIES.values()]
    assert ("background", *names) == COCO.class_names == VOC.class_names
    # the list in the released AttnFD code and in torchvision's references
    assert list(CATEGORIES) == [
        5,
        2,
        16,
        9,
        44,
        6,
        3,
        17,
        62,
        21,
        67,
        18,
        19,
        4,
        1,
        64,
        20,
        63,
        7,
        72,
    ]


@pytest.mark.parametrize("home", ["", "images/"])
def test_images_lie_beside_the_annotations_or_in_their_own_directory(
    make: Callable[..., Path], home: str
) -> None:
    root = make(annotation(CAT, box(0, 0, 5, 5)), home=home)
    dataset = COCO(root, "val").checked()
    assert dataset.ids == ["000000000009"]
    assert dataset.paths(0) == (
        root / f"{home}val2017/000000000009.jpg",
        root / "annotations/instances_val2017.json",
    )


def test_small_objects_are_on_top_whatever_their_order(make: Callable[..., Path]) -> None:
    small, large = (
        annotation(CAT, box(2, 2, 6, 6), area=16),
        annotation(PERSON, box(0, 0, 12, 8), area=BIG),
    )
    for order in ((small, large), (large, small)):
        label = values(make(*order))
        assert (label[3, 3], label[0, 0], label[7, 11]) == (8, 15, 15)


def test_crowds_are_ignored_and_under_everything(make: Callable[..., Path]) -> None:
    crowd = np.zeros((8, 12), bool)
    crowd[:, :6] = True
    for counts in (encode(crowd), compress(encode(crowd))):
        found = annotation(PERSON, {"size": [8, 12], "counts": counts}, area=1, crowd=1)
        label = values(make(annotation(CAR, box(4, 0, 8, 8)), found))
        assert set(label[:, :4].ravel()) == {255}
        assert set(label[:, 5:8].ravel()) == {7}
        assert set(label[:, 9:].ravel()) == {0}


def test_other_categories_are_background(make: Callable[..., Path]) -> None:
    label = values(make(annotation(CAT, box(0, 0, 3, 3)), annotation(PIZZA, box(6, 0, 12, 8))))
    assert set(label.ravel()) == {0, 8}
    assert not label[:, 6:].any()


def test_an_object_may_have_several_polygons_and_reach_outside(make: Callable[..., Path]) -> None:
    label = values(make(annotation(CAT, box(-1e9, -1e9, 3, 3) + box(8, 5, 1e300, 1e9))))
    assert (label[0, 0], label[7, 11], label[0, 11], label[7, 0]) == (8, 8, 0, 0)


def test_pillow_and_pycocotools_agree_up_to_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocotools")
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    outline = (
        np.stack([60 + 40 * np.cos(angles), 50 + 30 * np.sin(2 + angles)], axis=1).ravel().tolist()
    )
    exact = coco._fill([outline], 100, 120)
    monkeypatch.setattr(coco, "_pycocotools", lambda: None)
    simple = coco._fill([outline], 100, 120)
    assert exact.sum() > 1000
    grown = np.pad(exact, 1)
    near = np.any(
        [np.roll(grown, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=0
    )[1:-1, 1:-1]
    assert not (
        simple & ~near
    ).any()  # Pillow also paints the pixels that an edge runs through, and no others
    assert (simple & exact).sum() > 0.99 * exact.sum()


def test_without_pycocotools_pillow_paints(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    coco._pycocotools.cache_clear()
    try:
        label = values(make(annotation(CAT, box(2, 2, 6, 6))))
        assert coco._pycocotools() is None
    finally:
        coco._pycocotools.cache_clear()
    assert (label[3, 3], label[0, 0]) == (8, 0)


def test_an_image_counts_with_more_than_1000_pixels_of_the_classes(
    make: Callable[..., Path],
) -> None:
    def num(*areas: tuple[int, float, int]) -> int:
        found = [
            annotation(category, box(0, 0, 5, 5), area=area, crowd=crowd)
            for category, area, crowd in areas
        ]
        return len(COCO(make(*found), "val"))

    assert num() == 0
    assert num((CAT, 1000, 0)) == 0
    assert num((CAT, 1000.5, 0)) == 1
    assert num((CAT, 600, 0), (CAR, 600, 0)) == 1
    assert num((CAT, 600, 0), (PIZZA, 9000, 0)) == 0
    assert num((CAT, 600, 0), (CAR, 9000, 1)) == 0


def test_annotations_of_images_that_are_not_listed_are_left_out(make: Callable[..., Path]) -> None:
    assert len(COCO(make(annotation(CAT, box(0, 0, 5, 5), image=77)), "val")) == 0


def test_only_the_needed_annotations_are_sent_to_loading_processes(
    make: Callable[..., Path],
) -> None:
    many = [annotation(PIZZA, box(0, 0, 5, 5)) | {"keypoints": [0] * 500} for _ in range(200)]
    dataset = COCO(make(annotation(CAT, box(0, 0, 5, 5)), *many), "val")
    packed = pickle.dumps(dataset)
    assert len(packed) < 3000
    assert torch.equal(pickle.loads(packed).read(0)[1], dataset.read(0)[1])


# ---- what is refused


def listing(root: Path) -> str:
    return message(lambda: COCO(root, "val")).removeprefix(
        f"{root}/annotations/instances_val2017.json: "
    )


def reading(root: Path) -> str:
    return message(lambda: COCO(root, "val").read(0)).removeprefix(
        f"{root}/annotations/instances_val2017.json: "
    )


def test_a_root_without_the_split_is_refused(make: Callable[..., Path], tmp_path: Path) -> None:
    root = make()
    assert message(lambda: COCO(root, "test")) == (
        f"{root}: there is no annotations/instances_test2017.json; needed is COCO 2017: set "
        "data.root, and data.train_split and data.val_split to train and val"
    )
    (root / "val2017").rename(root / "elsewhere")
    assert message(lambda: COCO(root, "val")) == (
        f"{root}: there is neither a directory val2017 nor images/val2017; needed is COCO 2017: "
        "set data.root, and data.train_split and data.val_split to train and val"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"images": [', "Expecting value: line 1 column 13 (char 12)"),
        (b"\xff\xfe", "UnicodeDecodeError"),
        (b"[" * 200_000, "RecursionError"),
        (b'{"images": ' + b"9" * 9999 + b"}", "ValueError"),
    ],
)
def test_a_file_that_is_not_json_is_refused(
    make: Callable[..., Path], content: bytes, reason: str
) -> None:
    root = make()
    (root / "annotations/instances_val2017.json").write_bytes(content)
    assert listing(root) == f"is not JSON ({reason}); unpack the annotations again"


AS_IN_COCO = "needed are instances as in COCO 2017: unpack the annotations again"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"images": None}, "the JSON has no usable 'images'"),
        ({"annotations": {}}, "the JSON has no usable 'annotations'"),
        ({"categories": 3}, "the JSON has no usable 'categories'"),
        ({"categories": ["cat"]}, "a category has no usable 'id'"),
        ({"images": [7]}, "an image has no usable 'id'"),
        ({"images": [{"id": 9, "height": 8, "width": 12}]}, "image 9 has no usable 'file_name'"),
        (
            {"images": [{"id": 9, "height": "8", "width": 12, "file_name": "9.jpg"}]},
            "image 9 has no usable 'height'",
        ),
        ({"annotations": [[]]}, "an annotation has no usable 'image_id'"),
        (
            {"annotations": [{"image_id": 9}]},
            "an annotation of image 9 has no usable 'segmentation'",
        ),
        (
            {"annotations": [{"image_id": 9, "segmentation": [], "category_id": 17, "area": 1}]},
            "an annotation of image 9 has no usable 'iscrowd'",
        ),
        (
            {"annotations": [annotation(CAT, box(0, 0, 1, 1)) | {"area": "large"}]},
            "an annotation of image 9 has no usable 'area'",
        ),
    ],
)
def test_json_without_a_needed_field_is_refused(
    make: Callable[..., Path], changes: StrictModel, complaint: str
) -> None:
    assert listing(make(**changes)) == f"{complaint}; {AS_IN_COCO}"


def test_categories_that_mean_something_else_are_refused(make: Callable[..., Path]) -> None:
    root = make(categories=[{"id": 4, "name": "van"}])
    assert listing(root) == (
        "category 4 is 'van'; needed is 'motorcycle', as in COCO 2017: set data.root to COCO itself"
    )


@pytest.mark.parametrize(
    "name", ["../train2017/8.jpg", "/etc/passwd", "a/../../b.jpg", "a\0.jpg", "a\n.jpg"]
)
def test_a_file_name_that_leaves_the_root_is_refused(make: Callable[..., Path], name: str) -> None:
    root = make(images=[{"id": 9, "height": 8, "width": 12, "file_name": name}])
    assert listing(root) == (
        f"image 9 has the file name {name!r}; needed is a name inside the directory of the images"
    )


@pytest.mark.parametrize(("height", "width"), [(0, 12), (8, -1), (10**6, 10**6)])
def test_a_size_that_no_image_has_is_refused(
    make: Callable[..., Path], height: int, width: int
) -> None:
    root = make(images=[{"id": 9, "height": height, "width": width, "file_name": "9.jpg"}])
    assert listing(root) == (
        f"image 9 is {width}x{height}; needed are at least 1 and at most 100000000 pixels: unpack "
        "the annotations again"
    )


@pytest.mark.parametrize("area", [-1, float("nan"), float("inf")])
def test_an_invalid_area_is_refused(make: Callable[..., Path], area: float) -> None:
    assert listing(make(annotation(CAT, box(0, 0, 5, 5), area=area))) == (
        f"an annotation of image 9 has the area {area}; needed is a number of pixels: unpack the "
        "annotations again"
    )


def test_an_image_of_another_size_is_refused(make: Callable[..., Path]) -> None:
    root = make(annotation(CAT, box(0, 0, 5, 5)))
    Image.new("RGB", (8, 12)).save(root / "val2017/000000000009.jpg")
    assert reading(root) == (
        "image 9 is 12x8, but val2017/000000000009.jpg is 8x12; needed is the same size: check "
        "that they belong together"
    )


def test_a_broken_image_is_the_only_error(make: Callable[..., Path]) -> None:
    root = make(annotation(CAT, box(0, 0, 5, 5)))
    (root / "val2017/000000000009.jpg").write_bytes(b"none")
    assert reading(root).startswith(f"{root}/val2017/000000000009.jpg: cannot be read (")


RUNS = "an RLE whose runs do not add up to the image; needed are 96 pixels"
CORNERS = "needed are x and y of at least 3 corners"
STRING = "RLE counts that are not a compressed string; needed are all of its characters 0..o"
WHOLE = "RLE counts that are not lengths of runs; needed are whole numbers 0..96"


@pytest.mark.parametrize(
    ("segmentation", "complaint"),
    [
        ([], "an object without a polygon; needed is at least one"),
        ([[1, 1, 5, 1, 5, 5, 1]], f"a polygon of 7 numbers; {CORNERS}"),
        ([[1, 1, 5, 5]], f"a polygon of 4 numbers; {CORNERS}"),
        ([[1, 1, 5, 1, 5, "5"]], f"a polygon that is not a list of numbers; {CORNERS}"),
        (
            [[1, 1, 5, 1, 5, float("nan")]],
            f"a polygon with a corner that is not finite; {CORNERS}",
        ),
        ([3], f"a polygon that is not a list of numbers; {CORNERS}"),
        ({"counts": [96]}, "a mask that is not an RLE; needed are size and counts"),
        (
            {"size": [12, 8], "counts": [96]},
            "an RLE of size [12, 8]; needed is the image's [8, 12]",
        ),
        ({"size": [8, 12], "counts": [90, 5]}, RUNS),
        ({"size": [8, 12], "counts": compress([90, 7])}, RUNS),
        ({"size": [8, 12], "counts": compress([100, -4])}, RUNS),
        ({"size": [8, 12], "counts": [100, -4]}, WHOLE),
        ({"size": [8, 12], "counts": [48.0, 48.0]}, WHOLE),
        ({"size": [8, 12], "counts": None}, WHOLE),
        ({"size": [8, 12], "counts": ""}, STRING),
        ({"size": [8, 12], "counts": "P"}, STRING),  # ends where more must follow
        ({"size": [8, 12], "counts": "\u00e9"}, STRING),
        (
            {"size": [8, 12], "counts": "oooooooo0"},
            "RLE counts with a number of 9 characters; needed are at most 7",
        ),
    ],
)
def test_an_invalid_shape_is_refused(
    make: Callable[..., Path], segmentation: Any, complaint: str
) -> None:
    root = make(annotation(CAT, segmentation))
    assert reading(root) == f"image 9 has {complaint}: unpack the annotations again"
