from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.palette import voc_colormap
from attnfd_ray.data.toyscenes import write_toyscenes

PALETTE = [value for colour in voc_colormap() for value in colour]


def save_mask(path: Path, label_HW: np.ndarray) -> None:
    mask = Image.fromarray(label_HW.astype(np.uint8))
    mask.putpalette(PALETTE)
    mask.save(path)


def image_of(number: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def label_of(number: int, height: int, width: int, classes: int) -> np.ndarray:
    label = np.random.default_rng(number).integers(0, classes, (height, width), np.uint8)
    label[0] = 255
    return label


@pytest.fixture
def make_voc(tmp_path: Path) -> Callable[..., Path]:
    """Write a VOC tree of noise: train images a0.., val images b0.., each of its own size."""

    def make(home: str = "VOCdevkit/VOC2012", *, train: int = 5, val: int = 3, height: int = 20) -> Path:
        root = tmp_path / "voc"
        place = root / home
        for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (place / name).mkdir(parents=True)
        for split, letter, count in (("train", "a", train), ("val", "b", val)):
            ids = [f"{letter}{number}" for number in range(count)]
            (place / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids) + "\n")
            for number, name in enumerate(ids):
                Image.fromarray(image_of(number, height, 30 + number)).save(place / f"JPEGImages/{name}.jpg")
                save_mask(place / f"SegmentationClass/{name}.png", label_of(number, height, 30 + number, 21))
        return root

    return make


@pytest.fixture
def make_camvid(tmp_path: Path) -> Callable[..., Path]:
    """Write a CamVid tree of noise whose lists carry somebody else's absolute paths."""

    def make(*, lists: bool = True) -> Path:
        root = tmp_path / "camvid"
        for split, numbers in (("train", range(4)), ("val", range(4, 6))):
            lines = []
            for folder in (split, f"{split}annot"):
                (root / folder).mkdir(parents=True)
            for number in numbers:
                Image.fromarray(image_of(number, 18, 24)).save(root / split / f"{number}.png")
                label = np.where(label_of(number, 18, 24, 11) == 255, 11, label_of(number, 18, 24, 11))
                Image.fromarray(label.astype(np.uint8)).save(root / f"{split}annot" / f"{number}.png")
                lines.append(f"/SegNet/CamVid/{split}/{number}.png /SegNet/CamVid/{split}annot/{number}.png")
            if lists:
                (root / f"{split}.txt").write_text("\n\n".join(reversed(lines)))
        return root

    return make


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 train and 16 val images of toyscenes, 64 pixels wide."""
    root = tmp_path_factory.mktemp("toyscenes") / "toy"
    write_toyscenes(root, train=32, val=16)
    return root


@pytest.fixture(scope="session")
def settings() -> Callable[..., DataSettings]:
    def make(root: Path, name: str = "voc", **others: Any) -> DataSettings:
        return DataSettings(**{"name": name, "root": str(root), "crop": (16, 16), **others})

    return make
