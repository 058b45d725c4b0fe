"""The contract that every dataset keeps, and the additions of each."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCSegmentation

from attnfd_ray import registry
from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.datasets.base import open_dataset
from attnfd_ray.data.datasets.camvid import CamVid
from attnfd_ray.data.datasets.coco_json import CATEGORIES
from attnfd_ray.data.datasets.coco_stuff import COCOStuff
from attnfd_ray.data.datasets.voc import VOC, ToyScenes
from attnfd_ray.data.palette import voc_colormap
from attnfd_ray.errors import ConfigError
from attnfd_ray.testing.datasets import DatasetContract

Make = Callable[..., Path]
Settings = Callable[..., DataSettings]


# registered name -> fixtures that make such a dataset
ROOTS = {
    "camvid": ["make_camvid", "make_camvid_original"],
    "cityscapes": ["make_cityscapes"],
    "coco": ["make_coco"],
    "coco_stuff": ["make_coco_stuff"],
    "folder": ["make_folder"],
    "toyscenes": ["toy"],
    "voc": ["make_voc"],
}
CASES = [(name, root) for name, roots in ROOTS.items() for root in roots]
every_dataset = pytest.mark.parametrize(("name", "fixture"), CASES)


@pytest.fixture
def make_coco(tmp_path: Path) -> Make:
    """Write COCO with two images a split: a cat on one, and a cat below a crowd on the other."""

    def make() -> Path:
        root = tmp_path / "coco"
        (root / "annotations").mkdir(parents=True)
        for split in ("train", "val"):
            (root / f"{split}2017").mkdir()
            images, annotations = [], []
            for number in (8, 9):
                name = f"{number:012d}.jpg"
                Image.new("RGB", (60, 40), (number, 0, 0)).save(root / f"{split}2017" / name)
                images.append({"id": number, "file_name": name, "height": 40, "width": 60})
                annotations += [_box(number, width) for width in (50, 60)[: number - 7]]
            document = {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": key, "name": name} for key, name in CATEGORIES.items()],
            }
            file = root / f"annotations/instances_{split}2017.json"
            file.write_text(json.dumps(document))
        return root

    return make


def _box(image: int, width: int) -> dict[str, object]:
    """Return an annotation of a cat, or of a crowd if it is as wide as the image."""
    return {
        "id": 100 * image + width,
        "image_id": image,
        "category_id": 17,
        "iscrowd": int(width == 60),
        "area": 40 * width,
        "segmentation": [[0, 0, width, 0, width, 40, 0, 40]],
    }


@pytest.fixture
def make_coco_stuff(tmp_path: Path) -> Make:
    """Write COCO-Stuff with two images a split, whose masks have all values."""

    def make() -> Path:
        root = tmp_path / "coco_stuff"
        assert COCOStuff.label_map is not None
        values = np.array([*COCOStuff.label_map], np.uint8)[None].repeat(2, axis=0)
        for split in ("train", "val"):
            for folder in (f"{split}2017", f"annotations/{split}2017"):
                (root / folder).mkdir(parents=True)
            for number in (8, 9):
                name = f"{number:012d}"
                image = Image.new("RGB", values.shape[::-1], (number, 0, 0))
                image.save(root / f"{split}2017/{name}.jpg")
                Image.fromarray(values).save(root / f"annotations/{split}2017/{name}.png")
        return root

    return make


def root_of(fixture: str, request: pytest.FixtureRequest) -> Path:
    made = request.getfixturevalue(fixture)
    return made() if callable(made) else made


def test_every_registered_dataset_is_tested() -> None:
    assert ROOTS.keys() == registry.TABLES["dataset"].keys()


class TestEveryDataset(DatasetContract):
    @pytest.fixture(autouse=True, params=CASES, ids=lambda case: "-".join(case))
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.dataset, fixture = request.param
        self.root = root_of(fixture, request)


@every_dataset
def test_some_pixels_are_ignored_and_some_are_not(
    name: str, fixture: str, request: pytest.FixtureRequest, settings: Settings
) -> None:
    dataset = open_dataset(settings(root_of(fixture, request), name), split="train")
    ignored = torch.cat([dataset.read(index)[1].flatten() for index in range(len(dataset))]) == 255
    assert ignored.any()
    assert not ignored.all()


@every_dataset
def test_every_mask_is_what_pillow_reads(
    name: str, fixture: str, request: pytest.FixtureRequest, settings: Settings
) -> None:
    dataset = open_dataset(settings(root_of(fixture, request), name), split="train")
    _, path = dataset.paths(1)
    if path.suffix != ".png":
        return  # COCO's masks are painted
    label = dataset.read(1)[1].numpy()
    values = np.asarray(Image.open(path))
    if values.ndim == 2:  # the rest are masks of colours
        labelled = label != 255
        meanings = dataset.label_map or {value: value for value in range(256)}
        expected = np.vectorize(meanings.__getitem__)(values)
        np.testing.assert_array_equal(label[labelled], expected[labelled])


def test_the_fingerprint_depends_on_the_data_alone(make_voc: Make, tmp_path: Path) -> None:
    root = make_voc()
    before = VOC(root, "train").fingerprint()
    assert len(before) == 16
    int(before, 16)
    assert VOC(root, "val").fingerprint() != before
    shutil.copytree(root / "VOCdevkit/VOC2012", tmp_path / "elsewhere")
    assert VOC(tmp_path / "elsewhere", "train").fingerprint() == before

    mask = tmp_path / "elsewhere/SegmentationClass/a2.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    assert VOC(tmp_path / "elsewhere", "train").fingerprint() != before


@pytest.mark.parametrize(
    ("home", "below"),
    [
        ("VOCdevkit/VOC2012", ""),
        ("VOCdevkit/VOC2012", "VOCdevkit"),
        ("VOCdevkit/VOC2012", "VOCdevkit/VOC2012"),
        ("VOC2012/VOC2012", ""),
        ("VOC2012/VOC2012", "VOC2012"),
        ("VOCdevkit/VOC2012/VOC2012", ""),
    ],
)
def test_voc_is_found_wherever_the_root_points(make_voc: Make, home: str, below: str) -> None:
    dataset = VOC(make_voc(home) / below, "train")
    assert dataset.ids == ["a0", "a1", "a2", "a3", "a4"]
    assert dataset.read(4)[0].shape == (3, 20, 34)


@pytest.mark.parametrize("listed", ["trainaug", "train_aug"])
@pytest.mark.parametrize("asked", ["trainaug", "train_aug"])
def test_the_augmented_split_has_its_own_masks_and_two_names(
    make_voc: Make, listed: str, asked: str
) -> None:
    root = make_voc()
    home = root / "VOCdevkit/VOC2012"
    (home / f"ImageSets/Segmentation/{listed}.txt").write_text("a0\nb1\n")
    (home / "SegmentationClassAug").mkdir()
    for name, width in (("a0", 30), ("b1", 31)):
        Image.new("L", (width, 20), 7).save(home / f"SegmentationClassAug/{name}.png")
    dataset = VOC(root, asked)
    assert dataset.ids == ["a0", "b1"]
    assert bool((dataset.read(1)[1] == 7).all())


def test_the_voc_colours_are_those_of_the_real_masks() -> None:
    colours = voc_colormap()
    assert len(colours) == 256
    assert colours[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert (colours[8], colours[15], colours[20]) == ((64, 0, 0), (192, 128, 128), (0, 64, 128))
    assert colours[255] == (224, 224, 192)
    assert VOC.class_names[15] == "person"
    assert VOC.class_names[20] == "tvmonitor"


@pytest.mark.parametrize("split", ["train", "val"])
def test_torchvision_reads_the_same_from_toyscenes(toy: Path, split: str) -> None:
    theirs, ours = VOCSegmentation(str(toy), year="2012", image_set=split), ToyScenes(toy, split)
    assert len(theirs) == len(ours) == {"train": 32, "val": 16}[split]
    for index in (0, len(ours) - 1):
        image, mask = theirs[index]
        assert mask.mode == "P"
        np.testing.assert_array_equal(
            np.asarray(image), ours.read(index)[0].permute(1, 2, 0).numpy()
        )
        np.testing.assert_array_equal(np.asarray(mask), ours.read(index)[1].numpy())


def test_camvid_is_read_with_and_without_a_list(make_camvid: Make) -> None:
    root = make_camvid()
    assert CamVid(root, "train").ids == ["3", "2", "1", "0"]
    for split in ("train", "val"):
        (root / f"{split}.txt").unlink()
    assert CamVid(root, "train").ids == ["0", "1", "2", "3"]
    assert CamVid(root, "val").ids == ["4", "5"]


def test_camvids_unlabelled_pixels_are_ignored(make_camvid: Make) -> None:
    dataset = CamVid(make_camvid(), "train")
    raw = np.asarray(Image.open(dataset.paths(0)[1]))
    np.testing.assert_array_equal(dataset.read(0)[1].numpy() == 255, raw == 11)


def test_a_users_own_class_serves_as_a_dataset(make_voc: Make, settings: Settings) -> None:
    data = settings(make_voc(), "attnfd_ray.data.datasets.voc:VOC")
    assert len(open_dataset(data, split="val")) == 3
    with pytest.raises(ConfigError, match="has no 'Pascal'"):
        open_dataset(
            data.model_copy(update={"name": "attnfd_ray.data.datasets.voc:Pascal"}), split="val"
        )


@pytest.mark.skipif(
    "ATTNFD_CAMVID" not in os.environ, reason="ATTNFD_CAMVID does not name a copy of CamVid"
)
def test_the_real_camvid_is_as_published() -> None:
    root = Path(os.environ["ATTNFD_CAMVID"])
    train, val = CamVid(root, "train"), CamVid(root, "val")
    assert (len(train), len(val)) == (367, 101)
    assert not set(train.ids) & set(val.ids)
    assert sum(name.startswith("0016E5") for name in train.ids) == 204
    assert all(name.startswith("0016E5") for name in val.ids)
    assert train.read(0)[0].shape == (3, 360, 480)

    pixels = np.zeros(256, np.int64)
    for index in range(len(train)):
        with Image.open(train.paths(index)[1]) as mask:
            pixels += np.bincount(np.asarray(mask).ravel(), minlength=256)
    share = pixels / pixels.sum() * 100
    # percent of all pixels, with unlabelled ones, as measured in datasets.md on the same files
    published = {
        "Sky": 16.85,
        "Building": 23.26,
        "Road": 31.66,
        "Tree": 9.72,
        "Car": 5.87,
        "Bicyclist": 0.29,
    }
    for name, percent in published.items():
        assert share[CamVid.class_names.index(name)] == pytest.approx(percent, abs=0.2)
    assert share[11] == pytest.approx(3.95, abs=0.2)
    assert pixels[12:].sum() == 0
