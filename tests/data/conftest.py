from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.generate.toyscenes import write_toyscenes
from attnfd_ray.data.palette import voc_colormap

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

    def make(
        home: str = "VOCdevkit/VOC2012", *, train: int = 5, val: int = 3, height: int = 20
    ) -> Path:
        root = tmp_path / "voc"
        base = root / home
        for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (base / name).mkdir(parents=True)
        for split, letter, count in (("train", "a", train), ("val", "b", val)):
            ids = [f"{letter}{number}" for number in range(count)]
            (base / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids) + "\n")
            for number, name in enumerate(ids):
                image = image_of(100 * (split == "val") + number, height, 30 + number)
                Image.fromarray(image).save(base / f"JPEGImages/{name}.jpg")
                save_mask(
                    base / f"SegmentationClass/{name}.png",
                    label_of(number, height, 30 + number, 21),
                )
        return root

    return make


@pytest.fixture
def make_camvid(tmp_path: Path) -> Callable[..., Path]:
    """Write a CamVid tree of noise whose lists hold absolute paths of another machine."""

    def make(*, lists: bool = True) -> Path:
        root = tmp_path / "camvid"
        for split, numbers in (("train", range(4)), ("val", range(4, 6))):
            lines = []
            for folder in (split, f"{split}annot"):
                (root / folder).mkdir(parents=True)
            for number in numbers:
                Image.fromarray(image_of(number, 18, 24)).save(root / split / f"{number}.png")
                label = np.where(
                    label_of(number, 18, 24, 11) == 255, 11, label_of(number, 18, 24, 11)
                )
                Image.fromarray(label.astype(np.uint8)).save(
                    root / f"{split}annot" / f"{number}.png"
                )
                lines.append(
                    f"/SegNet/CamVid/{split}/{number}.png /SegNet/CamVid/{split}annot/{number}.png"
                )
            if lists:
                (root / f"{split}.txt").write_text("\n\n".join(reversed(lines)))
        return root

    return make


CITYSCAPES_FRAMES = (
    "zurich/zurich_000001_000019",
    "aachen/aachen_000002_000019",
    "aachen/aachen_000000_000019",
)


@pytest.fixture
def make_cityscapes(tmp_path: Path) -> Callable[..., Path]:
    """Write a Cityscapes tree of noise with 3 images a split.

    Each kind of mask has the values 0..classes-1 and 255.
    """

    def make(
        home: str = "",
        *,
        images: str = "leftImg8bit",
        splits: tuple[str, ...] = ("train", "val"),
        annotation: str = "gtFine",
        kinds: dict[str, int] | None = None,
    ) -> Path:
        root = tmp_path / "cityscapes_root"
        for split in splits:
            for number, frame in enumerate(CITYSCAPES_FRAMES):
                frame = (
                    frame
                    if split != "val"
                    else frame.replace("zurich", "lindau").replace("aachen", "munster")
                )
                image = root / home / images / split / f"{frame}_leftImg8bit.png"
                image.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image_of(number + 10 * splits.index(split), 16, 32)).save(image)
                for kind, classes in (kinds or {"labelIds": 34}).items():
                    mask = root / home / annotation / split / f"{frame}_{annotation}_{kind}.png"
                    mask.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(label_of(number, 16, 32, classes)).save(mask)
        return root

    return make


@pytest.fixture
def make_camvid_original(tmp_path: Path) -> Callable[..., Path]:
    """Write a tree of the original CamVid: noise in five colours and void, and lists of ids."""

    def make() -> Path:
        root = tmp_path / "camvid_original"
        colours = np.array(
            [(0, 0, 0), (128, 128, 128), (64, 192, 0), (0, 0, 64), (0, 0, 192), (192, 0, 192)],
            np.uint8,
        )
        for folder in ("701_StillsRaw_full", "LabeledApproved_full"):
            (root / folder).mkdir(parents=True)
        for split, film, numbers in (("train", "0006R0", range(3)), ("val", "0016E5", range(3, 5))):
            ids = [f"{film}_{number:05d}" for number in numbers]
            (root / f"{split}.txt").write_text("\n".join(ids))
            for name, number in zip(ids, numbers, strict=True):
                Image.fromarray(image_of(number, 18, 24)).save(
                    root / f"701_StillsRaw_full/{name}.png"
                )
                label = colours[np.random.default_rng(number).integers(0, len(colours), (18, 24))]
                Image.fromarray(label).save(root / f"LabeledApproved_full/{name}_L.png")
        return root

    return make


CLASSES = "classes: [{name: road, id: 7}, {name: car, id: 0}, {name: sky, id: 255}]\nignore: [3]\n"


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of noise whose masks hold 7, 0, 255 and 3."""

    def make(classes: str = CLASSES) -> Path:
        root = tmp_path / "folder"
        root.mkdir()
        (root / "classes.yaml").write_text(classes)
        for split, numbers in (("train", range(3)), ("val", range(3, 5))):
            for kind in ("images", "masks"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
            for number in numbers:
                Image.fromarray(image_of(number, 12, 15)).save(
                    root / f"images/{split}/{number}.jpg"
                )
                label = np.array([7, 0, 255, 3], np.uint8)[
                    np.random.default_rng(number).integers(0, 4, (12, 15))
                ]
                Image.fromarray(label).save(root / f"masks/{split}/{number}.png")
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


@pytest.fixture
def make(settings: Callable[..., DataSettings]) -> Callable[..., DataSettings]:
    """Return settings whose views are random only where a test asks for it."""

    def plain(**others: object) -> DataSettings:
        return settings(Path("unused"), **{"scale": (1.0, 1.0), "flip": 0.0, "blur": 0.0, **others})

    return plain
