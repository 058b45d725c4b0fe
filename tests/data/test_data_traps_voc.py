"""Traps of Pascal VOC and SBD: in each test naive code is run and fails, and ours does not."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_matrix
from torchvision.datasets import SBDataset, VOCSegmentation

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.datasets.base import open_dataset
from attnfd_ray.data.datasets.voc import VOC
from attnfd_ray.data.generate.voc_aug import plan_trainaug, read_sbd_mask, write_trainaug
from attnfd_ray.data.palette import voc_colormap
from attnfd_ray.errors import DataError

Make = Callable[..., Path]
HOME = Path("VOCdevkit/VOC2012")
LISTS = HOME / "ImageSets/Segmentation"
PALETTE = [value for colour in voc_colormap() for value in colour]
CAT, TRAIN = 8, 19


def values_of(mask: Image.Image) -> list[int]:
    return sorted(np.unique(np.asarray(mask)).tolist())


# ---- lists and files


@pytest.fixture
def augmented(make_voc: Make) -> Path:
    """VOC with trainaug: a0, whose mask in SegmentationClass differs, and b1, as if from SBD."""
    root = make_voc()
    (root / HOME / "SegmentationClassAug").mkdir()
    for name, width in (("a0", 30), ("b1", 31)):
        Image.new("L", (width, 20), 7).save(root / HOME / f"SegmentationClassAug/{name}.png")
    (root / HOME / "SegmentationClass/b1.png").unlink()
    return root


@pytest.mark.parametrize("name", ["trainaug", "train_aug"])
def test_trainaug_is_refused_by_torchvision_and_read_by_us(augmented: Path, name: str) -> None:
    def naive(root: Path) -> VOCSegmentation:
        return VOCSegmentation(str(root), image_set=name)

    (augmented / LISTS / f"{name}.txt").write_text("a0\nb1\n")
    with pytest.raises(ValueError, match=r"Unknown value 'train_?aug' for argument image_set"):
        naive(augmented)
    ours = VOC(augmented, name).checked()
    assert [set(ours.read(index)[1].unique().tolist()) for index in range(2)] == [{7}, {7}]


def test_trainaug_under_the_name_of_train_gets_the_masks_of_train(augmented: Path) -> None:
    def naive(root: Path) -> VOCSegmentation:
        """Avoid torchvision's check of the split by overwriting the list of train."""
        (root / LISTS / "train.txt").write_text((root / LISTS / "trainaug.txt").read_text())
        return VOCSegmentation(str(root), image_set="train")

    (augmented / LISTS / "trainaug.txt").write_text("a0\nb1\n")
    theirs = naive(augmented)
    assert values_of(theirs[0][1]) != [7]  # SegmentationClass has another mask of a0
    with pytest.raises(FileNotFoundError, match=r"SegmentationClass/b1\.png"):
        theirs[1]
    assert set(VOC(augmented, "trainaug").read(0)[1].unique().tolist()) == {7}


def test_a_missing_file_is_found_by_torchvision_when_it_is_read_and_by_us_before(
    make_voc: Make, settings: Callable[..., DataSettings]
) -> None:
    def naive(root: Path) -> VOCSegmentation:
        return VOCSegmentation(str(root), image_set="train")

    root = make_voc()
    for missing in ("JPEGImages/a3.jpg", "SegmentationClass/a4.png"):
        (root / HOME / missing).unlink()
    theirs = naive(root)
    assert len(theirs) == 5
    theirs[0]
    for index in (3, 4):
        with pytest.raises(FileNotFoundError):
            theirs[index]
    with pytest.raises(
        DataError, match=r"2 of the 10 files of split 'train' are missing: \S+a3.jpg, \S+a4.png"
    ):
        open_dataset(settings(root), split="train")


def test_a_blank_line_is_an_image_without_a_name_to_torchvision_and_nothing_to_us(
    make_voc: Make,
) -> None:
    def naive(root: Path) -> VOCSegmentation:
        return VOCSegmentation(str(root), image_set="val")

    root = make_voc()
    (root / LISTS / "val.txt").write_text("b0\n\nb2\n \n")
    theirs = naive(root)
    assert [Path(path).name for path in theirs.images] == ["b0.jpg", ".jpg", "b2.jpg", ".jpg"]
    with pytest.raises(FileNotFoundError, match=r"JPEGImages/\.jpg"):
        theirs[1]
    assert VOC(root, "val").checked().ids == ["b0", "b2"]


@pytest.mark.parametrize("below", ["VOCdevkit", "VOCdevkit/VOC2012"])
def test_a_root_below_voc_devkit_is_no_voc_to_torchvision(make_voc: Make, below: str) -> None:
    def naive(root: Path) -> VOCSegmentation:
        return VOCSegmentation(str(root), image_set="val")

    root = make_voc() / below
    with pytest.raises(RuntimeError, match="Dataset not found or corrupted"):
        naive(root)
    assert VOC(root, "val").checked().ids == ["b0", "b1", "b2"]


# ---- palettes


def naive_grey(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


def naive_red(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))[..., 0]


@pytest.mark.parametrize(
    ("naive", "expected"),
    [
        (
            naive_grey,
            [0, TRAIN, 147, 220],
        ),  # the brightness of the colours: that of a cat is the id of a train
        (naive_red, [0, 64, 192, 224]),
    ],
)
def test_the_colours_of_a_palette_are_not_its_ids(
    make_voc: Make, naive: Callable[[Path], np.ndarray], expected: list[int]
) -> None:
    dataset = VOC(make_voc(), "train")
    path, ids = dataset.paths(0)[1], np.zeros((20, 30), np.uint8)
    ids[:, 5:10], ids[:, 10:15], ids[:, 15:] = CAT, 15, 255
    mask = Image.fromarray(ids)
    mask.putpalette(PALETTE)
    mask.save(path)
    assert naive(path)[0, [0, 5, 10, 15]].tolist() == expected
    np.testing.assert_array_equal(dataset.read(0)[1].numpy(), ids)

    Image.fromarray(naive(path)).save(path)  # a mask stored like this is refused
    with pytest.raises(DataError, match=f"mask values .*{expected[-1]} are no class"):
        dataset.read(0)


def naive_quantised(ids_HW: np.ndarray) -> Image.Image:
    """Colour a mask, then convert it to a palette: Pillow chooses its own."""
    return Image.fromarray(np.array(voc_colormap(), np.uint8)[ids_HW]).convert("P")


def naive_plain(ids_HW: np.ndarray) -> Image.Image:
    return Image.fromarray(ids_HW)


def test_a_mask_is_written_with_its_ids_and_its_colours(toy: Path) -> None:
    path = toy / HOME / "SegmentationClass/train_00000.png"
    with Image.open(path) as mask:
        ids, colours = np.asarray(mask), np.asarray(mask.convert("RGB"))
        assert mask.mode == "P"
    assert len(np.unique(ids)) > 3
    np.testing.assert_array_equal(colours, np.array(voc_colormap())[ids])

    quantised, plain = naive_quantised(ids), naive_plain(ids)
    assert quantised.mode == "P"
    assert (np.asarray(quantised) != ids)[ids > 0].mean() > 0.9  # indices of Pillow's palette
    assert plain.mode == "L"
    assert (
        np.asarray(plain.convert("RGB"))[ids < 255].max() < 12
    )  # almost black, so its content is invisible


# ---- SBD


class Roots(NamedTuple):
    """The roots of VOC and SBD."""

    voc: Path
    sbd: Path

    @property
    def lists(self) -> Path:
        return self.sbd / "benchmark_RELEASE/dataset"


@pytest.fixture
def roots(make_voc: Make, tmp_path: Path) -> Roots:
    """VOC has train a0..a4 and val b0..b2; each list of SBD has one of both, and s0 or s1."""
    roots = Roots(make_voc(), tmp_path / "sbd")
    for folder in ("cls", "img"):
        (roots.lists / folder).mkdir(parents=True)
    for split, names in (("train", ("a0", "b0", "s0")), ("val", ("a1", "b1", "s1"))):
        (roots.lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for number, name in enumerate(names):
            label = np.random.default_rng(number).integers(0, 21, (20, 30), np.uint8)
            boundaries = np.empty((20, 1), object)
            for index in range(20):
                boundaries[index, 0] = csc_matrix(label == index + 1)
            savemat(
                roots.lists / f"cls/{name}.mat",
                {"GTcls": {"Boundaries": boundaries, "Segmentation": label}},
            )
            for folder in (roots.lists / "img", roots.voc / HOME / "JPEGImages"):
                if not (folder / f"{name}.jpg").exists():
                    Image.new("RGB", (30, 20)).save(folder / f"{name}.jpg")
    return roots


def ids_of(dataset: SBDataset) -> set[str]:
    return {Path(path).stem for path in dataset.masks}


def test_torchvisions_sbd_gives_boundaries_by_default(roots: Roots) -> None:
    def naive(root: Path) -> SBDataset:
        return SBDataset(str(root), image_set="train")

    target = naive(roots.lists)[2][1]
    assert target.shape == (20, 20, 30)  # 20 classes, an edge map each
    assert set(np.unique(target)) == {0, 1}
    label = read_sbd_mask(roots.lists / "cls/s0.mat")
    assert label.shape == (20, 30)
    assert set(np.unique(label)) == set(range(21))


@pytest.mark.parametrize("below", ["", "benchmark_RELEASE"])
def test_sbd_as_its_archive_unpacks_is_not_where_torchvision_looks(
    roots: Roots, below: str
) -> None:
    def naive(root: Path) -> SBDataset:
        return SBDataset(str(root), image_set="train", mode="segmentation")

    root = roots.sbd / below
    with pytest.raises(FileNotFoundError, match=r"train\.txt"):
        naive(root)
    assert plan_trainaug(roots.voc, root, any_count=True).aug == ["s0", "s1"]


def test_the_lists_of_sbd_leak_the_val_of_voc(roots: Roots) -> None:
    def naive(root: Path) -> set[str]:
        """Take all images of SBD for training."""
        return {
            name
            for split in ("train", "val")
            for name in ids_of(SBDataset(str(root), split, "segmentation"))
        }

    def naive_noval(root: Path) -> SBDataset:
        return SBDataset(str(root), "train_noval", "segmentation")

    scored = set(VOC(roots.voc, "val").ids)
    assert naive(roots.lists) & scored == {"b0", "b1"}
    with pytest.raises(FileNotFoundError, match=r"train_noval\.txt"):  # not in the archive
        naive_noval(roots.lists)
    plan = plan_trainaug(*roots, any_count=True)
    assert not set(plan.trainaug) & scored
    assert plan.trainaug == ["a0", "a1", "a2", "a3", "a4", "s0", "s1"]


def test_the_masks_of_sbd_have_no_contour_to_ignore(roots: Roots) -> None:
    def naive(root: Path) -> dict[str, Image.Image]:
        """Take the mask of SBD for each of its images."""
        theirs = SBDataset(str(root), "train", "segmentation")
        return {Path(path).stem: theirs[index][1] for index, path in enumerate(theirs.masks)}

    assert values_of(naive(roots.lists)["a0"])[-1] == 20
    write_trainaug(plan_trainaug(*roots, any_count=True))
    ours, own = VOC(roots.voc, "trainaug").checked(), VOC(roots.voc, "train")
    label = ours.read(ours.ids.index("a0"))[1]
    assert bool((label == 255).any())
    assert label.equal(own.read(own.ids.index("a0"))[1])
