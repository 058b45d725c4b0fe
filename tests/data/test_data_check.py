"""What is looked at before a run starts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.check import quick_check
from attnfd_ray.data.dataset import SegmentationDataset
from attnfd_ray.data.scenes import CLASS_NAMES
from attnfd_ray.errors import DataError

Settings = Callable[..., DataSettings]
Make = Callable[..., Path]
HOME = Path("VOCdevkit/VOC2012")


def test_a_good_dataset_is_summed_up(toy: Path, settings: Settings) -> None:
    summary = quick_check(settings(toy, "toyscenes"))
    assert (summary.num_train, summary.num_val, summary.num_classes) == (32, 16, 12)
    assert summary.class_names == CLASS_NAMES
    assert len(summary.data_hash) == 16


def test_the_hash_covers_both_splits_and_not_their_place(make_voc: Make, settings: Settings, tmp_path: Path) -> None:
    root = make_voc()
    before = quick_check(settings(root)).data_hash
    assert quick_check(settings(root / "VOCdevkit")).data_hash == before
    image = root / HOME / "JPEGImages/b1.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    assert quick_check(settings(root)).data_hash != before


def test_at_most_eight_images_are_read(toy: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, int]] = []
    original = SegmentationDataset.read
    monkeypatch.setattr(
        SegmentationDataset, "read", lambda self, index: (read.append((self.split, index)), original(self, index))[1]
    )
    quick_check(settings(toy, "toyscenes"))
    assert read == [*(("train", i) for i in (0, 10, 20, 31)), *(("val", i) for i in (0, 5, 10, 15))]


@pytest.mark.parametrize("broken", ["a0", "b0", "b2"])
def test_a_broken_mask_is_found_before_anything_starts(make_voc: Make, settings: Settings, broken: str) -> None:
    root = make_voc()
    mask = root / HOME / f"SegmentationClass/{broken}.png"
    mask.write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        quick_check(settings(root))
    assert (
        str(caught.value)
        == f"{mask}: cannot be read (cannot identify image file); needed is a whole image file: copy it again"
    )


def test_images_in_both_splits_are_refused(make_voc: Make, settings: Settings) -> None:
    root = make_voc()
    with (root / HOME / "ImageSets/Segmentation/train.txt").open("a") as stream:
        stream.write("b1\nb0\n")
    with pytest.raises(DataError) as caught:
        quick_check(settings(root))
    assert str(caught.value) == (
        f"{root}: 2 images of val split 'val' are also in train split 'train' (b0, b1); a score needs images not "
        "learned from: set data.train_split or data.val_split to another list"
    )


def test_a_pad_label_that_is_no_class_is_refused(toy: Path, settings: Settings) -> None:
    for label in (0, 11, 255):
        quick_check(settings(toy, "toyscenes", pad_label=label))
    with pytest.raises(DataError) as caught:
        quick_check(settings(toy, "toyscenes", pad_label=12))
    assert str(caught.value) == (
        "data.pad_label 12: toyscenes has no such class; needed is 0..11, or 255 for pixels that do not count"
    )
