"""The checks of a dataset before a run starts, quick and full."""

import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.checker.check import check_data, quick_check
from attnfd_ray.data.checker.inspection import SampleAt, difference_hash, inspect
from attnfd_ray.data.datasets.base import Sample, SegmentationDataset
from attnfd_ray.data.datasets.voc import VOC
from attnfd_ray.data.generate.scenes import CLASS_NAMES
from attnfd_ray.data.loading import process_pool
from attnfd_ray.errors import DataError, RunFailed

Settings = Callable[..., DataSettings]
Make = Callable[..., Path]
HOME = Path("VOCdevkit/VOC2012")


def test_a_good_dataset_is_summarised(toy: Path, settings: Settings) -> None:
    summary = quick_check(settings(toy, "toyscenes"))
    assert (summary.num_train, summary.num_val, summary.num_classes) == (32, 16, 12)
    assert summary.class_names == CLASS_NAMES
    assert len(summary.data_hash) == 16


def test_the_hash_covers_both_splits_and_not_their_directory(
    make_voc: Make, settings: Settings, tmp_path: Path
) -> None:
    root = make_voc()
    before = quick_check(settings(root)).data_hash
    assert quick_check(settings(root / "VOCdevkit")).data_hash == before
    image = root / HOME / "JPEGImages/b1.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    assert quick_check(settings(root)).data_hash != before


def test_at_most_eight_images_are_read(
    toy: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, int]] = []
    original = SegmentationDataset.read
    monkeypatch.setattr(
        SegmentationDataset,
        "read",
        lambda self, index: (read.append((self.split, index)), original(self, index))[1],
    )
    quick_check(settings(toy, "toyscenes"))
    assert read == [*(("train", i) for i in (0, 10, 20, 31)), *(("val", i) for i in (0, 5, 10, 15))]


@pytest.mark.parametrize("broken", ["a0", "b0", "b2"])
def test_a_broken_mask_is_found_before_anything_starts(
    make_voc: Make, settings: Settings, broken: str
) -> None:
    root = make_voc()
    mask = root / HOME / f"SegmentationClass/{broken}.png"
    mask.write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        quick_check(settings(root))
    assert (
        str(caught.value)
        == f"{mask}: cannot be read (cannot identify image file); needed is a whole image file: "
        "copy it again"
    )


def test_images_in_both_splits_are_refused(make_voc: Make, settings: Settings) -> None:
    root = make_voc()
    with (root / HOME / "ImageSets/Segmentation/train.txt").open("a") as stream:
        stream.write("b1\nb0\n")
    with pytest.raises(DataError) as caught:
        quick_check(settings(root))
    assert str(caught.value) == (
        f"{root}: 2 images of val split 'val' are also in train split 'train' (b0, b1); a score "
        "needs images not learned from: set data.train_split or data.val_split to another list"
    )


def test_a_pad_label_that_is_no_class_is_refused(toy: Path, settings: Settings) -> None:
    for label in (0, 11, 255):
        quick_check(settings(toy, "toyscenes", pad_label=label))
    with pytest.raises(DataError) as caught:
        quick_check(settings(toy, "toyscenes", pad_label=12))
    assert str(caught.value) == (
        "data.pad_label 12: toyscenes has no such class; needed is 0..11, or 255 for pixels that "
        "do not count"
    )


# ---- the full check


def test_pixels_are_counted_as_numpy_counts_them(toy: Path, settings: Settings) -> None:
    report = check_data(settings(toy, "toyscenes"), full=True)
    assert (report.errors, report.warnings, report.notes, report.full) == ((), (), (), True)
    assert report.data_hash == quick_check(settings(toy, "toyscenes")).data_hash
    for split, count in zip(report.splits, (32, 16), strict=True):
        masks = sorted((toy / HOME / "SegmentationClass").glob(f"{split.role}_*.png"))
        labels_NHW = np.stack([np.asarray(Image.open(mask)) for mask in masks])
        assert (split.num_images, split.num_read, split.num_published) == (count, count, None)
        assert split.ignored_share == pytest.approx((labels_NHW == 255).mean())
        for label, found in enumerate(split.classes):
            assert found.name == CLASS_NAMES[label]
            assert found.pixel_share == pytest.approx((labels_NHW == label).mean())
            assert found.num_images == (labels_NHW == label).any((1, 2)).sum()
            most = (labels_NHW == label).sum((1, 2)).argmax()
            assert found.examples[0] == masks[most].stem
        assert split.ignored_share + sum(
            found.pixel_share for found in split.classes
        ) == pytest.approx(1)


def test_without_full_a_few_are_read_and_no_images_compared(
    make_voc: Make, settings: Settings
) -> None:
    root = make_voc(train=9)
    images = root / HOME / "JPEGImages"
    shutil.copy(images / "a0.jpg", images / "a8.jpg")
    shutil.copy(root / HOME / "SegmentationClass/a0.png", root / HOME / "SegmentationClass/a8.png")
    report = check_data(settings(root))
    assert [split.num_read for split in report.splits] == [4, 3]
    assert report.warnings == ()
    assert check_data(settings(root), full=True).warnings == (
        (
            f"{images / 'a8.jpg'}: the same image as {images / 'a0.jpg'}, both in train split "
            "'train': take one off"
        ),
    )


@pytest.mark.parametrize("num_classes", [21, 171])
def test_of_a_full_check_a_few_bytes_a_class_are_kept_for_each_image(
    monkeypatch: pytest.MonkeyPatch, num_classes: int, tmp_path: Path
) -> None:
    class Large(VOC):
        class_names = tuple(map(str, range(num_classes)))

        def list_samples(self) -> list[Sample]:
            return [Sample(str(number), "", "") for number in range(500)]

        def read(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            # counts above 256, which Python does not cache
            label_HW = torch.arange(num_classes, dtype=torch.uint8).repeat(300, 1)
            return torch.full((3, *label_HW.shape), index % 256, dtype=torch.uint8), label_HW

    monkeypatch.setattr(
        process_pool, "_MAX_PROCESSES", 0
    )  # all in this process, whose memory is measured
    dataset, samples = Large(tmp_path, "train"), [SampleAt(0, index) for index in range(500)]
    tracemalloc.start()
    (facts,), problems = inspect([dataset], samples, lambda done, total: None)
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(facts), problems) == (500, [])
    assert (facts["pixels"] == 300).all()
    assert kept_bytes / 500 < 4 * num_classes + 64


def test_several_processes_find_what_one_finds(
    make_voc: Make, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_voc()
    (root / HOME / "SegmentationClass/a3.png").write_text("no mask")
    alone = check_data(settings(root), full=True)
    monkeypatch.setattr(process_pool, "_FILES_PER_PROCESS", 2)
    calls: list[tuple[int, int]] = []
    assert (
        check_data(settings(root), full=True, on_read=lambda *counts: calls.append(counts)) == alone
    )
    assert calls == [(done, 8) for done in range(1, 9)]
    assert len(alone.errors) == 1


def test_a_reading_process_that_dies_ends_the_check_in_one_line(
    make_voc: Make, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getpid()
    monkeypatch.setattr(process_pool, "_FILES_PER_PROCESS", 2)
    monkeypatch.setattr(VOC, "read", lambda *_: os._exit(9) if os.getpid() != parent else None)
    monkeypatch.setattr(process_pool.os, "sched_getaffinity", lambda _: {0, 1})
    root = make_voc()
    with pytest.raises(RunFailed) as caught:
        check_data(settings(root), full=True)
    assert str(caught.value).startswith(
        f"{root}: one of 2 reading processes died, near sample 0 of 8 ("
    )
    assert "\n" not in str(caught.value)


def test_a_val_image_saved_again_from_a_train_image_is_a_note(
    toy: Path, settings: Settings, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(toy, root)
    images = root / HOME / "JPEGImages"
    Image.open(images / "train_00004.jpg").save(images / "val_00002.jpg", quality=60)
    report = check_data(settings(root, "toyscenes"), full=True)
    assert report.errors == report.warnings == ()
    (note,) = report.notes
    assert note.startswith(
        "1 images of val split 'val' look almost like one of train split 'train'; a score on them "
    )
    assert note.endswith(" is optimistic (val_00002 like train_00004)")


def test_the_difference_hash_has_a_bit_where_an_image_gets_brighter() -> None:
    image = torch.zeros(3, 16, 18, dtype=torch.uint8)
    assert difference_hash(image) == 0
    image[:, :2, 16:] = 200  # the last of nine columns in the first of eight rows
    assert difference_hash(image) == 1 << 56
    rising = torch.arange(18, dtype=torch.uint8).mul(9).expand(3, 16, 18)
    assert difference_hash(rising) == 2**64 - 1


def test_classes_without_a_pixel_are_a_warning(make_voc: Make, settings: Settings) -> None:
    root = make_voc()
    for mask in (root / HOME / "SegmentationClass").glob("b*.png"):
        labels = np.asarray(Image.open(mask)).copy()
        labels[(labels == 7) | (labels == 20)] = 0
        Image.fromarray(labels).save(mask)
    assert check_data(settings(root), full=True).warnings == (
        "val split 'val' has no pixel of 2 of 21 classes: car, tvmonitor",
    )


def test_another_number_of_images_than_published_is_a_note(
    make_voc: Make, settings: Settings
) -> None:
    assert check_data(settings(make_voc())).notes == (
        "train split 'train' has 5 images; published are 1464",
        "val split 'val' has 3 images; published are 1449",
    )


def test_frames_of_one_film_in_both_splits_are_a_note(
    make_camvid: Make, settings: Settings
) -> None:
    root = make_camvid(lists=False)
    assert "films" not in "".join(check_data(settings(root, "camvid")).notes)
    for path in root.rglob("*.png"):
        film = "0006R0" if path.stem in "01" else "0016E5"
        path.rename(path.with_name(f"{film}_{path.name}"))
    notes = check_data(settings(root, "camvid")).notes
    assert notes[-1] == (
        "2 of 2 images of val split 'val' are frames of films that train split 'train' has frames "
        "of too (0016E5): neighbours in time, so a score on them is optimistic"
    )


@pytest.mark.slow
@pytest.mark.skipif(
    "ATTNFD_CAMVID" not in os.environ, reason="ATTNFD_CAMVID does not name a copy of CamVid"
)
def test_the_real_camvid_has_no_error_and_one_note(settings: Settings) -> None:
    report = check_data(settings(Path(os.environ["ATTNFD_CAMVID"]), "camvid"), full=True)
    assert (report.errors, report.warnings) == ((), ())
    assert [note.partition(" of val split")[0] for note in report.notes] == ["101 of 101 images"]
    assert [split.num_classes_seen for split in report.splits] == [11, 11]


def test_a_test_split_is_checked_too_and_does_not_change_the_hash(
    make_voc: Make, settings: Settings
) -> None:
    root = make_voc()
    before = quick_check(settings(root)).data_hash
    listed = root / HOME / "ImageSets/Segmentation/test.txt"
    (root / HOME / "JPEGImages/c0.jpg").write_bytes(
        (root / HOME / "JPEGImages/a1.jpg").read_bytes()
    )
    shutil.copy(root / HOME / "SegmentationClass/a1.png", root / HOME / "SegmentationClass/c0.png")
    listed.write_text("c0\n")
    data = settings(root, test_split="test")
    assert quick_check(data).data_hash == before
    (error,) = check_data(data, full=True).errors
    assert error.startswith(f"{root / HOME / 'JPEGImages/c0.jpg'}: the same image as ")
    listed.write_text("b1\n")
    with pytest.raises(
        DataError,
        match=r"of test split 'test' are also in val split 'val' \(b1\).* data.test_split to ",
    ):
        quick_check(data)
