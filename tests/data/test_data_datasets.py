"""What every dataset promises, and what each adds."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCSegmentation

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.datasets.base import SegmentationDataset, open_dataset
from attnfd_ray.data.datasets.camvid import CamVid
from attnfd_ray.data.datasets.voc import VOC, ToyScenes
from attnfd_ray.data.palette import voc_colormap
from attnfd_ray.errors import ConfigError

Make = Callable[..., Path]
Settings = Callable[..., DataSettings]


@pytest.fixture(params=["voc", "camvid", "camvid_original", "cityscapes", "folder", "toyscenes"])
def dataset(request: pytest.FixtureRequest, settings: Settings) -> SegmentationDataset:
    name = request.param
    root = (
        request.getfixturevalue("toy")
        if name == "toyscenes"
        else request.getfixturevalue(f"make_{name}")()
    )
    return open_dataset(settings(root, name.removesuffix("_original")), split="train")


def test_every_sample_is_rgb_bytes_and_class_ids(dataset: SegmentationDataset) -> None:
    for index in range(len(dataset)):
        image, label = dataset.read(index)
        assert image.dtype == label.dtype == torch.uint8
        assert image.shape == (3, *label.shape)
        assert image.permute(1, 2, 0).is_contiguous()  # channels last, as resizing is fastest
        assert bool(((label < dataset.num_classes) | (label == 255)).all())
        assert bool((label == 255).any())


def test_every_dataset_names_and_colours_its_classes(dataset: SegmentationDataset) -> None:
    assert len(dataset.class_names) == len(set(dataset.class_names)) == dataset.num_classes
    assert len(dataset.palette) == len(set(dataset.palette)) == dataset.num_classes


def test_every_image_is_what_pillow_reads(dataset: SegmentationDataset) -> None:
    image_path, label_path = dataset.paths(1)
    image, label = dataset.read(1)
    np.testing.assert_array_equal(
        image.permute(1, 2, 0).numpy(), np.asarray(Image.open(image_path).convert("RGB"))
    )
    values, kept = np.asarray(Image.open(label_path)), label.numpy() != 255
    assert kept.any()
    if values.ndim == 2:  # else a mask of colours
        meanings = dataset.label_map or {value: value for value in range(256)}
        np.testing.assert_array_equal(
            label.numpy()[kept], np.vectorize(meanings.__getitem__)(values)[kept]
        )


def test_the_fingerprint_stays_with_the_data_and_changes_with_it(
    make_voc: Make, tmp_path: Path
) -> None:
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


def test_camvid_follows_its_list_and_does_without(make_camvid: Make) -> None:
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


def test_anyones_class_serves_as_a_dataset(make_voc: Make, settings: Settings) -> None:
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
    # percent of all pixels, unlabelled included, as datasets.md measured them on the same files
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
