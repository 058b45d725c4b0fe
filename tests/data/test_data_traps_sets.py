"""Traps of Cityscapes, CamVid, pets: in each test naive code is run and fails, ours does not."""

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import cross_entropy
from torchvision.datasets import Cityscapes as TorchvisionCityscapes
from torchvision.datasets import OxfordIIITPet, wrap_dataset_for_transforms_v2

from attnfd_ray.data.datasets.base import SegmentationDataset
from attnfd_ray.data.datasets.camvid import CamVid
from attnfd_ray.data.datasets.cityscapes import Cityscapes
from attnfd_ray.data.datasets.folder import Folder
from attnfd_ray.errors import DataError

Make = Callable[..., Path]

# ---- Cityscapes: the label ids 7, 26, 33 and 4 are road, car, bicycle and static


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Cityscapes with one val image of road, car, bicycle and something static."""
    frame = "munster/munster_000000_000019"
    label = np.array([[7, 26, 33, 4]] * 4, np.uint8)
    instances = np.where(label == 26, np.uint16(26_001), label)
    for name, values in (
        (f"leftImg8bit/val/{frame}_leftImg8bit.png", np.zeros((4, 4, 3), np.uint8)),
        (f"gtFine/val/{frame}_gtFine_labelIds.png", label),
        (f"gtFine/val/{frame}_gtFine_instanceIds.png", instances),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(tmp_path / name)
    return tmp_path


ROW = [0, 13, 18, 255]


def test_torchvisions_cityscapes_gives_instances_by_default(street: Path) -> None:
    def naive(root: Path) -> np.ndarray:
        return np.asarray(TorchvisionCityscapes(str(root), "val")[0][1])

    values = naive(street)
    assert values[0].tolist() == [7, 26_001, 33, 4]
    assert values.astype(np.uint8)[0, 1] == 145  # as a byte it is meaningless
    assert Cityscapes(street, "val").read(0)[1][0].tolist() == ROW


def test_label_ids_are_not_class_ids(street: Path) -> None:
    def naive(root: Path) -> np.ndarray:
        return np.asarray(TorchvisionCityscapes(str(root), "val", target_type="semantic")[0][1])

    def naive_wrapped(root: Path) -> np.ndarray:
        wrapped = wrap_dataset_for_transforms_v2(
            TorchvisionCityscapes(str(root), "val", target_type="semantic")
        )
        return wrapped[0][1].squeeze(0).numpy()

    for values in (naive(street), naive_wrapped(street)):
        assert values[0].tolist() == [7, 26, 33, 4]
        assert Cityscapes.class_names[values[0, 0]] == "traffic sign"  # it is a road
    assert Cityscapes(street, "val").read(0)[1][0].tolist() == ROW


def test_a_table_of_train_ids_fails_for_the_licence_plate(street: Path) -> None:
    def naive_bytes() -> np.ndarray:
        table = np.full(256, 255, np.uint8)
        for entry in TorchvisionCityscapes.classes:
            table[entry.id] = entry.train_id
        return table

    def naive_34() -> np.ndarray:
        """A table with one entry per id: -1, the licence plate, writes the last one."""
        table = np.full(34, 255)
        for entry in TorchvisionCityscapes.classes:
            table[entry.id] = entry.train_id
        return table

    with pytest.raises(OverflowError, match="-1 out of bounds for uint8"):
        naive_bytes()
    assert naive_34()[[7, 26, 33, 4]].tolist() == [0, 13, -1, 255]  # the bicycles are lost
    assert Cityscapes(street, "val").read(0)[1][0].tolist() == ROW


def test_missing_directories_are_unpacked_by_torchvision_and_reported_by_us(
    street: Path, tmp_path: Path
) -> None:
    def naive(root: Path) -> int:
        return len(TorchvisionCityscapes(str(root), "val", target_type="semantic"))

    root = tmp_path / "archives"
    root.mkdir()
    for name in ("leftImg8bit", "gtFine"):
        with zipfile.ZipFile(root / f"{name}_trainvaltest.zip", "w") as archive:
            for path in sorted((street / name).rglob("*.png")):
                archive.write(path, path.relative_to(street))
    with pytest.raises(DataError, match="has no images; needed is a directory leftImg8bit/val"):
        Cityscapes(root, "val")
    assert len(list(root.iterdir())) == 2
    assert naive(root) == 1
    assert len(list(root.iterdir())) == 4  # gigabytes, unpacked by a constructor


def test_the_test_split_is_refused_by_us_and_has_masks_for_torchvision(street: Path) -> None:
    def naive(root: Path) -> np.ndarray:
        return np.asarray(TorchvisionCityscapes(str(root), "test", target_type="semantic")[0][1])

    for name in ("leftImg8bit", "gtFine"):
        (street / name / "val").rename(street / name / "test")
    Image.new("L", (4, 4), 0).save(next(street.glob("gtFine/test/*/*_labelIds.png")))
    assert not naive(street).any()
    with pytest.raises(DataError, match="split 'test' has only dummy masks"):
        Cityscapes(street, "test")


# ---- the order of a directory


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that lists every directory from z to a."""
    listdir, iterdir, glob = os.listdir, Path.iterdir, Path.glob

    def reverse(call: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        return lambda *args: iter(sorted(call(*args), reverse=True))

    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), reverse=True))
    monkeypatch.setattr(Path, "iterdir", reverse(iterdir))
    monkeypatch.setattr(Path, "glob", reverse(glob))


@pytest.mark.usefixtures("backwards")
def test_the_order_is_that_of_the_names_on_every_file_system(
    make_cityscapes: Make, make_camvid: Make, make_folder: Make
) -> None:
    def naive(root: Path) -> list[str]:
        theirs = TorchvisionCityscapes(str(root), "train", target_type="semantic")
        return [Path(path).name.removesuffix("_leftImg8bit.png") for path in theirs.images]

    root = make_cityscapes()
    assert naive(root) == ["zurich_000001_000019", "aachen_000002_000019", "aachen_000000_000019"]
    assert Cityscapes(root, "train").ids == sorted(naive(root))
    for ours in (CamVid(make_camvid(lists=False), "train"), Folder(make_folder(), "train")):
        assert len(ours) >= 3
        assert ours.ids == sorted(ours.ids)


def test_the_hidden_files_of_a_mac_are_not_images(make_folder: Make) -> None:
    def naive(root: Path) -> list[Path]:
        return sorted((root / "images/train").glob("*.jpg"))

    root = make_folder()
    for hidden in ("images/train/._0.jpg", "masks/train/._0.png"):
        (root / hidden).write_bytes(b"what a Mac knows of 0")
    assert [path.name for path in naive(root)] == ["._0.jpg", "0.jpg", "1.jpg", "2.jpg"]
    with pytest.raises(UnidentifiedImageError):
        Image.open(naive(root)[0])
    assert Folder(root, "train").checked().ids == ["0", "1", "2"]


# ---- ids that are replaced one after another


def naive_in_place(values_HW: np.ndarray, meanings: dict[int, int]) -> np.ndarray:
    """Replace one id after another in the mask itself, as the released AttnFD code does."""
    mask = values_HW.copy()
    for value, label in meanings.items():
        mask[mask == value] = label
    return mask


def test_ids_that_are_mapped_in_place_are_mapped_twice(make_folder: Make, street: Path) -> None:
    classes = (
        "classes: [{name: road, id: 7}, {name: car, id: 0}, {name: sky, id: 255}]\nignore: [3]\n"
    )
    dataset = Folder(make_folder(classes), "train")
    values = np.asarray(Image.open(dataset.paths(0)[1]))
    label = dataset.read(0)[1].numpy()
    meanings = {7: 0, 0: 1, 255: 2, 3: 255}
    naive = naive_in_place(values, meanings)
    assert set(naive[values == 7]) == {1}  # road, then car
    for value, meaning in meanings.items():
        assert set(label[values == value]) == {meaning}

    # In Cityscapes no new id equals an old one that comes later, which hides the error.
    values = np.array([[7, 26, 33, 4]])
    fine = {entry.id: entry.train_id & 255 for entry in TorchvisionCityscapes.classes}
    assert (
        naive_in_place(values, fine)[0].tolist() == Cityscapes(street, "val").read(0)[1][0].tolist()
    )


# ---- CamVid


def test_the_unlabelled_value_of_camvid_is_not_a_twelfth_class(make_camvid: Make) -> None:
    def naive(dataset: SegmentationDataset) -> np.ndarray:
        return np.array(Image.open(dataset.paths(0)[1]))

    dataset = CamVid(make_camvid(), "train")
    logits = torch.zeros(1, 11, 18, 24)
    with pytest.raises(IndexError, match="Target 11 is out of bounds"):
        cross_entropy(logits, torch.from_numpy(naive(dataset)).long()[None], ignore_index=255)
    label = dataset.read(0)[1]
    loss = cross_entropy(logits, label.long()[None], ignore_index=255, reduction="sum")
    assert float(loss) == pytest.approx(
        int((naive(dataset) != 11).sum()) * np.log(11), rel=1e-5
    )  # float32


def test_the_paths_in_camvids_lists_are_of_another_machine(make_camvid: Make) -> None:
    def naive(root: Path) -> list[list[Path]]:
        lines = (root / "train.txt").read_text().splitlines()
        return [[root / part for part in line.split()] for line in lines]

    root = make_camvid()
    theirs = naive(root)
    assert [len(pair) for pair in theirs] == [
        2,
        0,
        2,
        0,
        2,
        0,
        2,
    ]  # blank lines become empty pairs
    assert theirs[0][0] == Path("/SegNet/CamVid/train/3.png")  # an absolute path replaces the root
    ours = CamVid(root, "train").checked()
    assert ours.paths(0) == (root / "train/3.png", root / "trainannot/3.png")


def test_the_32_colours_of_camvid_are_more_than_the_11_of_the_tutorial(
    make_camvid_original: Make,
) -> None:
    def naive(path: Path) -> np.ndarray:
        """Look every colour up in the palette of the 11 classes."""
        colours_HWC, label_HW = np.asarray(Image.open(path)), np.full((18, 24), 255)
        for label, colour in enumerate(CamVid.palette):
            label_HW[(colours_HWC == colour).all(-1)] = label
        return label_HW

    dataset = CamVid(make_camvid_original(), "train")
    path = dataset.paths(0)[1]
    colours_HWC = np.asarray(Image.open(path))
    theirs, ours = naive(path), dataset.read(0)[1].numpy()
    names = {
        (128, 128, 128): "Sky",
        (64, 192, 0): "Building",
        (0, 0, 64): "Pole",
        (0, 0, 192): "Pavement",
    }
    for colour, name in names.items():
        found = (colours_HWC == colour).all(-1)
        assert {dataset.class_names[label] for label in ours[found]} == {name}
        assert set(theirs[found]) == (
            {0} if name == "Sky" else {255}
        )  # walls, cones and sidewalks are lost


# ---- pets


def test_a_trimap_has_its_own_numbers(tmp_path: Path) -> None:
    """1 is the pet, 2 the background and 3 the border between them, as in the Oxford-IIIT pets."""
    root = tmp_path / "oxford-iiit-pet"
    (root / "annotations/trimaps").mkdir(parents=True)
    (root / "images").mkdir()
    values = np.array([[1, 2, 3, 3]] * 2, np.uint8)
    Image.new("RGB", (4, 2)).save(root / "images/Abyssinian_1.jpg")
    Image.fromarray(values).save(root / "annotations/trimaps/Abyssinian_1.png")
    (root / "annotations/trainval.txt").write_text("Abyssinian_1 1 1 1\n")

    def naive() -> torch.Tensor:
        theirs = OxfordIIITPet(str(tmp_path), target_types="segmentation")
        return torch.from_numpy(np.array(theirs[0][1])).long()

    with pytest.raises(IndexError, match="Target 3 is out of bounds"):
        cross_entropy(torch.zeros(1, 3, 2, 4), naive()[None], ignore_index=255)
    assert set((naive() - 1).unique().tolist()) == {
        0,
        1,
        2,
    }  # minus one, the border is still a class

    (root / "trainval.txt").write_text("Abyssinian_1\n")
    (root / "classes.yaml").write_text(
        "images: images\nmasks: annotations/trimaps\n"
        "classes: [{name: background, id: 2}, {name: pet, id: 1}]\nignore: [3]\n"
    )
    ours = Folder(root, "trainval").checked()
    assert ours.ids == ["Abyssinian_1"]
    assert ours.read(0)[1][0].tolist() == [1, 0, 255, 255]
