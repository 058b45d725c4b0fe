"""COCO-Stuff: its 171 classes, the values of its masks, and its directories."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.datasets.base import open_dataset
from attnfd_ray.data.datasets.coco_json import CATEGORIES
from attnfd_ray.data.datasets.coco_stuff import COCOStuff
from attnfd_ray.data.palette import voc_colormap
from attnfd_ray.errors import DataError

NEVER = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
USED = [value for value in range(182) if value not in NEVER]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write COCO-Stuff: two train images and one val image; each mask has all values."""

    def make(masks: str = "annotations", images: str = "") -> Path:
        values = np.array([*USED, 255], np.uint8).reshape(4, 43)
        for split, numbers in (("train", (9, 8)), ("val", (7,))):
            for folder in (f"{masks}/{split}2017", f"{images}{split}2017"):
                (tmp_path / folder).mkdir(parents=True)
            for number in numbers:
                name = f"{number:012d}"
                Image.new("RGB", (43, 4), (number, 0, 0)).save(
                    tmp_path / f"{images}{split}2017/{name}.jpg"
                )
                Image.fromarray(values).save(tmp_path / f"{masks}/{split}2017/{name}.png")
                Image.fromarray(values).save(
                    tmp_path / f"{masks}/{split}2017/{name}_labelTrainIds.png"
                )
        return tmp_path

    return make


def test_the_classes_are_80_things_and_91_kinds_of_stuff() -> None:
    names = COCOStuff.class_names
    assert len(names) == len(set(names)) == 80 + 91
    assert (names[0], names[79], names[80], names[170]) == (
        "person",
        "toothbrush",
        "banner",
        "wood",
    )
    assert list(names[80:]) == sorted(names[80:])


def test_every_thing_has_the_number_that_coco_gives_it() -> None:
    assert COCOStuff.label_map is not None
    for category, name in CATEGORIES.items():
        assert COCOStuff.class_names[COCOStuff.label_map[category - 1]] == name


def test_stuff_keeps_its_published_numbers() -> None:
    # published labels; the value in a mask is one less
    published = {
        92: "banner",
        106: "clouds",
        119: "flower",
        124: "grass",
        149: "road",
        157: "sky-other",
        169: "tree",
    }
    assert COCOStuff.label_map is not None
    for number, name in published.items():
        assert COCOStuff.class_names[COCOStuff.label_map[number - 1]] == name


def test_the_contract_of_a_dataset_holds(make: Callable[..., Path]) -> None:
    data = DataSettings(name="coco_stuff", root=str(make()), crop=(4, 4))
    dataset = open_dataset(data, split="train")
    assert dataset.ids == ["000000000008", "000000000009"]
    for index in range(2):
        image, label = dataset.read(index)
        assert image.dtype == label.dtype == torch.uint8
        assert image.shape == (3, *label.shape) == (3, 4, 43)
        assert image.permute(1, 2, 0).is_contiguous()  # channels last, as resizing is fastest
        assert label.flatten().tolist() == [*range(171), 255]
    assert dataset.num_classes == len(dataset.palette) == len(set(dataset.palette)) == 171
    assert dataset.palette == voc_colormap()[:171]


@pytest.mark.parametrize(("masks", "images"), [("stuffthingmaps", ""), ("annotations", "images/")])
def test_masks_and_images_can_be_where_the_archives_put_them(
    make: Callable[..., Path], masks: str, images: str
) -> None:
    dataset = COCOStuff(make(masks, images), "val").checked()
    name = "000000000007"
    assert dataset.samples == [(name, f"{images}val2017/{name}.jpg", f"{masks}/val2017/{name}.png")]


@pytest.mark.parametrize("value", NEVER)
def test_an_unpublished_value_is_refused(make: Callable[..., Path], value: int) -> None:
    root = make()
    path = root / "annotations/val2017/000000000007.png"
    Image.new("L", (43, 4), value).save(path)
    with pytest.raises(DataError) as caught:
        COCOStuff(root, "val").read(0)
    assert str(caught.value).startswith(
        f"{path}: mask values {value} are no class; needed are 0, 1, 2, "
    )


def test_a_root_without_masks_is_refused(make: Callable[..., Path]) -> None:
    root = make(masks="elsewhere")
    with pytest.raises(DataError) as caught:
        COCOStuff(root, "val")
    assert str(caught.value) == (
        f"{root}: there is neither a directory annotations/val2017 nor stuffthingmaps/val2017; "
        "needed is COCO 2017: set data.root, and data.train_split and data.val_split to train and "
        "val"
    )
