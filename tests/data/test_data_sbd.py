"""VOC's augmented set from SBD: its content, what it never overwrites, and its command."""

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_matrix
from torchvision.datasets import SBDataset

from attnfd_ray import cli
from attnfd_ray.data.datasets.voc import VOC
from attnfd_ray.data.generate import voc_aug
from attnfd_ray.data.generate.voc_aug import plan_trainaug, read_sbd_mask, write_trainaug
from attnfd_ray.data.palette import voc_colormap
from attnfd_ray.errors import DataError

HOME = "VOCdevkit/VOC2012"
# VOC's train is a0..a4 and its val b0..b2. SBD has two of each and four more, half in either list.
SBD_TRAIN, SBD_VAL = ("a0", "b0", "s0", "s1"), ("a1", "b1", "s2", "s3")
TRAINAUG = ["a0", "a1", "a2", "a3", "a4", "s0", "s1", "s2", "s3"]


class Roots(NamedTuple):
    """The roots of VOC and SBD."""

    voc: Path
    sbd: Path


def sbd_label(name: str) -> np.ndarray:
    return np.random.default_rng(sum(name.encode())).integers(0, 21, (20, 30), np.uint8)


def save_mat(path: Path, label_HW: np.ndarray, *, compressed: bool = True) -> None:
    """Write a file of SBD: a struct of sparse boundaries, the mask, and the classes in it."""
    boundaries = np.empty((20, 1), object)
    for label in range(20):
        boundaries[label, 0] = csc_matrix(label_HW == label + 1)
    found = np.unique(label_HW[label_HW > 0])
    gt: dict[str, Any] = {
        "Boundaries": boundaries,
        "Segmentation": label_HW,
        "CategoriesPresent": found,
    }
    savemat(path, {"GTcls": gt}, do_compression=compressed)


@pytest.fixture
def roots(make_voc: Callable[..., Path], tmp_path: Path) -> Roots:
    voc, sbd = make_voc(), tmp_path / "sbd/benchmark_RELEASE/dataset"
    for folder in ("cls", "img"):
        (sbd / folder).mkdir(parents=True)
    for split, names in (("train", SBD_TRAIN), ("val", SBD_VAL)):
        (sbd / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            save_mat(sbd / f"cls/{name}.mat", sbd_label(name), compressed=name != "s0")
            Image.new("RGB", (30, 20)).save(sbd / f"img/{name}.jpg")
            if name.startswith("s"):
                Image.new("RGB", (30, 20)).save(voc / HOME / f"JPEGImages/{name}.jpg")
    return Roots(voc, sbd)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def run(roots: Roots, *options: str) -> tuple[int, str, str]:
        words = [
            "attnfd-ray",
            "data",
            "voc-aug",
            "--voc",
            str(roots.voc),
            "--sbd",
            str(roots.sbd),
            *options,
        ]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as raised:
            cli.main()
        printed = capsys.readouterr()
        return int(raised.value.code or 0), printed.out, printed.err

    return run


def make(roots: Roots) -> bool:
    return write_trainaug(plan_trainaug(*roots, any_count=True))


def refused(call: Callable[[], object], root: Path) -> str:
    """Return the error line of a call; check that it changed nothing under root."""
    before = files_of(root)
    with pytest.raises(DataError) as caught:
        call()
    assert files_of(root) == before
    text = str(caught.value)
    assert "\n" not in text
    return text


def files_of(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in root.rglob("*")}


# ---- what is written


def test_trainaug_is_all_there_is_without_val(roots: Roots) -> None:
    plan = plan_trainaug(*roots, any_count=True)
    assert plan.trainaug == TRAINAUG
    assert plan.aug == ["s0", "s1", "s2", "s3"]
    assert plan.home == roots.voc / HOME
    assert write_trainaug(plan)
    trainaug, aug = VOC(roots.voc, "trainaug").checked(), VOC(roots.voc, "aug").checked()
    assert (trainaug.ids, aug.ids) == (TRAINAUG, plan.aug)
    assert not set(trainaug.ids) & set(VOC(roots.voc, "val").ids)
    for name, index in (("s0", 5), ("s3", 8)):
        np.testing.assert_array_equal(trainaug.read(index)[1].numpy(), sbd_label(name))


def test_masks_that_voc_has_are_vocs_own(roots: Roots) -> None:
    make(roots)
    masks = roots.voc / HOME / "SegmentationClassAug"
    assert sorted(path.stem for path in masks.iterdir()) == sorted([*TRAINAUG, "b0", "b1", "b2"])
    for name in ("a0", "a4", "b0", "b2"):
        assert (masks / f"{name}.png").read_bytes() == (
            masks.parent / f"SegmentationClass/{name}.png"
        ).read_bytes()


def test_masks_of_sbd_are_written_with_vocs_palette(roots: Roots) -> None:
    make(roots)
    with Image.open(roots.voc / HOME / "SegmentationClassAug/s1.png") as mask:
        assert mask.mode == "P"
        colours = np.array(mask.getpalette()).reshape(-1, 3)
        np.testing.assert_array_equal(colours, voc_colormap()[: len(colours)])
        assert len(colours) >= 21
        np.testing.assert_array_equal(np.asarray(mask), sbd_label("s1"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_torchvision_reads_the_same_of_sbd(roots: Roots, split: str) -> None:
    theirs = SBDataset(str(roots.sbd), image_set=split, mode="segmentation")
    assert len(theirs) == 4
    for index, path in enumerate(theirs.masks):
        np.testing.assert_array_equal(read_sbd_mask(Path(path)), np.asarray(theirs[index][1]))


@pytest.mark.parametrize("above", [0, 1, 2])
def test_sbd_is_found_wherever_the_root_points(roots: Roots, above: int) -> None:
    root = [roots.sbd, *roots.sbd.parents][above]
    assert plan_trainaug(roots.voc, root, any_count=True).trainaug == TRAINAUG


def test_a_second_time_changes_nothing(roots: Roots) -> None:
    assert make(roots)
    before = files_of(roots.voc)
    assert not make(roots)
    assert files_of(roots.voc) == before


def test_an_interruption_between_masks_and_lists_is_completed(roots: Roots) -> None:
    make(roots)
    whole = files_of(roots.voc)
    for name in ("aug", "trainaug"):
        (roots.voc / HOME / f"ImageSets/Segmentation/{name}.txt").unlink()
        assert make(roots)
        assert files_of(roots.voc) == whole


def test_the_same_ids_in_another_order_are_kept(roots: Roots) -> None:
    path = roots.voc / HOME / "ImageSets/Segmentation/trainaug.txt"
    path.write_text("\n".join(reversed(TRAINAUG)))
    assert make(roots)
    assert VOC(roots.voc, "trainaug").checked().ids == TRAINAUG[::-1]


def test_an_empty_directory_of_masks_is_as_good_as_none(roots: Roots) -> None:
    (roots.voc / HOME / "SegmentationClassAug").mkdir()
    assert make(roots)


def test_on_mask_is_called_with_the_number_of_masks_done(roots: Roots) -> None:
    calls: list[int] = []
    write_trainaug(plan_trainaug(*roots, any_count=True), calls.append)
    assert calls == list(range(1, 13))


# ---- what is refused without a change


def test_other_than_the_published_counts_are_refused(roots: Roots) -> None:
    assert refused(lambda: plan_trainaug(*roots), roots.voc) == (
        f"{roots.sbd}: with {roots.voc} this makes 9 images of trainaug and 4 of aug; needed are "
        "10582 and 9118: complete both sets, or take cut ones with --any-count"
    )


def test_a_directory_without_sbd_is_refused(roots: Roots, tmp_path: Path) -> None:
    assert refused(lambda: plan_trainaug(roots.voc, roots.voc), roots.voc) == (
        f"{roots.voc}: no SBD here; needed are cls, train.txt and val.txt in it or in dataset or "
        "benchmark_RELEASE/dataset: give the directory that holds benchmark_RELEASE"
    )


WANTED = (
    "needed is ImageSets/Segmentation in it or in VOC2012, VOCdevkit/VOC2012, VOC2012/VOC2012, "
    "VOCdevkit/VOC2012/VOC2012"
)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("elsewhere", "no such directory; set --voc to the directory of the dataset"),
        ("sbd", f"no VOC 2012 here; {WANTED}: set --voc to the directory that holds VOCdevkit"),
        (
            "voc",
            (
                f"there is no list {HOME}/ImageSets/Segmentation/val.txt; there is: train; unpack "
                "VOC 2012 again"
            ),
        ),
    ],
)
def test_a_wrong_voc_is_refused_by_the_name_of_its_option(
    roots: Roots,
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    broken: str,
    problem: str,
) -> None:
    (roots.voc / HOME / "ImageSets/Segmentation/val.txt").unlink()
    root = tmp_path / broken
    assert run(Roots(root, roots.sbd)) == (2, "", f"{root}: {problem}\n")


def test_masks_that_sbd_lacks_are_counted(roots: Roots) -> None:
    for name in ("s1", "s2", "a0"):  # a0 has a mask of VOC
        (roots.sbd / f"cls/{name}.mat").unlink()
    text = f"{roots.sbd}: 2 masks cls/*.mat are missing: s1, s2; unpack SBD again"
    assert refused(lambda: make(roots), roots.voc) == text


@pytest.mark.parametrize("name", ["../s0", "/etc/s0", "sub/s0"])
def test_a_list_of_sbd_that_leaves_its_directory_is_refused(roots: Roots, name: str) -> None:
    (roots.sbd / "val.txt").write_text(f"s2\n{name}\n")
    assert refused(lambda: make(roots), roots.voc) == (
        f"{roots.sbd}/val.txt: {name} are not ids; needed is the name of a file in cls without "
        ".mat on each line"
    )


NEEDED = "needed is GTcls with an 8-bit Segmentation of classes 0..20: unpack SBD again"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"other": 3}, "has no GTcls"),
        ({"GTcls": np.eye(3)}, None),
        ({"GTcls": {"Boundaries": 3}}, None),
        ({"GTcls": {"Segmentation": np.full((20, 30), 21, np.uint8)}}, "is not a mask of SBD"),
        ({"GTcls": {"Segmentation": np.zeros((20, 30))}}, "is not a mask of SBD"),
        ({"GTcls": {"Segmentation": "text"}}, "is not a mask of SBD"),
        ({"GTcls": {"Segmentation": np.zeros((2, 20, 30), np.uint8)}}, "is not a mask of SBD"),
    ],
)
def test_a_file_without_a_mask_is_refused_by_name(
    roots: Roots, content: dict[str, Any], complaint: str | None
) -> None:
    path = roots.sbd / "cls/s2.mat"
    savemat(path, content)
    text = refused(lambda: make(roots), roots.voc)
    assert text.startswith(f"{path}: {complaint or 'cannot be read ('}")
    assert text.endswith(f"; {NEEDED}")


@pytest.mark.parametrize("name", ["s0", "s1"])
def test_a_file_cut_short_is_refused_by_name(roots: Roots, name: str) -> None:
    path = roots.sbd / f"cls/{name}.mat"
    whole = path.read_bytes()
    lengths = range(0, len(whole), len(whole) // 60)
    assert len(lengths) >= 60
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError) as caught:
            read_sbd_mask(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).endswith(f"; {NEEDED}")


def test_a_file_that_crashes_its_reader_is_refused_by_name(
    roots: Roots, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fatal(path: Path) -> np.ndarray:
        if path.stem == "s2":
            os.kill(os.getpid(), signal.SIGSEGV)
        return read_sbd_mask(path)

    monkeypatch.setattr(voc_aug, "read_sbd_mask", fatal)
    for processes in (1, 2):
        monkeypatch.setattr(voc_aug, "pool_size", lambda _, size=processes: size)
        text = refused(lambda: make(roots), roots.voc)
        assert (
            text
            == f"{roots.sbd}/cls/s2.mat: cannot be read (the process that read it died); {NEEDED}"
        )
    assert capfd.readouterr() == ("", "")


def test_a_damaged_file_never_ends_this_process(roots: Roots) -> None:
    path = roots.sbd / "cls/s0.mat"  # the one that is not compressed
    whole = path.read_bytes()
    # on these scipy 1.17 dies (by two signals), divides by zero, and loses a variable
    for offset, value in ((912, 192), (1513, 228), (1512, 45), (6640, 236)):
        damaged = bytearray(whole)
        damaged[offset] = value
        path.write_bytes(damaged)
        masks = roots.voc / HOME / "SegmentationClassAug"
        problems: list[str] = []
        try:
            make(roots)
        except DataError as error:
            problems = error.problems
        if problems:
            (problem,) = problems
            assert re.fullmatch(rf"{path}: cannot be read \(.*\); {re.escape(NEEDED)}", problem)
        else:  # by luck the mask is whole: the memory after a list differs from time to time
            np.testing.assert_array_equal(np.asarray(Image.open(masks / "s0.png")), sbd_label("s0"))
            shutil.rmtree(masks)


def test_a_reader_that_died_for_another_reason_is_replaced(
    roots: Roots, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def once(path: Path) -> np.ndarray:
        if path.stem == "s2" and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return read_sbd_mask(path)

    monkeypatch.setattr(voc_aug, "read_sbd_mask", once)
    calls: list[int] = []
    assert write_trainaug(plan_trainaug(*roots, any_count=True), calls.append)
    assert calls == sorted(set(calls))  # the count at which the death was noticed may be missing
    assert calls[-1] == 12
    assert (tmp_path / "died").exists()
    assert not make(roots)


def test_another_list_is_never_overwritten(roots: Roots) -> None:
    path = roots.voc / HOME / "ImageSets/Segmentation/aug.txt"
    path.write_text("s0\ns1\n")
    assert refused(lambda: make(roots), roots.voc) == (
        f"{path}: exists and lists other images; needed is none, or one with the same images: move "
        "it away"
    )


def test_other_masks_are_never_overwritten(roots: Roots) -> None:
    make(roots)
    masks = roots.voc / HOME / "SegmentationClassAug"
    Image.new("L", (30, 20), 3).save(masks / "s1.png")
    assert refused(lambda: make(roots), roots.voc) == (
        f"{masks}/s1.png: exists and differs from {roots.sbd}/cls/s1.mat; needed is none, or the "
        "same mask: move SegmentationClassAug away"
    )
    (masks / "s1.png").unlink()
    (masks / "b2.png").unlink()
    assert refused(lambda: make(roots), roots.voc) == (
        f"{masks}: exists and lacks 2 of 12 masks: b2, s1; needed is none, or a complete "
        "directory: move it away"
    )


def test_a_mask_that_breaks_half_way_leaves_nothing_behind(roots: Roots) -> None:
    (roots.sbd / "cls/s3.mat").write_bytes(b"broken")  # the last one
    assert "cls/s3.mat: cannot be read (" in refused(lambda: make(roots), roots.voc)


# ---- the command


def test_the_command_reports_what_it_wrote_or_that_it_existed(
    roots: Roots, run: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = run(roots, "--any-count")
    assert (code, err) == (0, "")
    assert out.startswith(f"{roots.voc}/{HOME}: 9 images of trainaug, 4 of aug, written in ")
    assert out.endswith(" s\n")
    again = f"{roots.voc}/{HOME}: 9 images of trainaug, 4 of aug, already there, nothing to do\n"
    assert run(roots, "--any-count") == (0, again, "")


def test_the_command_names_images_that_voc_lacks(
    roots: Roots, run: Callable[..., tuple[int, str, str]]
) -> None:
    for name in ("s1", "s3"):
        (roots.voc / HOME / f"JPEGImages/{name}.jpg").unlink()
    code, _, err = run(roots, "--any-count")
    assert code == 0
    assert err == (
        f"{roots.voc}/{HOME}: 2 images of trainaug are missing in JPEGImages: s1, s3; copy them "
        "from the directory img of SBD\n"
    )


def test_the_command_refuses_cut_sets_in_one_line(
    roots: Roots, run: Callable[..., tuple[int, str, str]]
) -> None:
    before = files_of(roots.voc)
    code, out, err = run(roots)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith("complete both sets, or take cut ones with --any-count\n")
    assert files_of(roots.voc) == before


def test_the_published_counts_are_accepted_silently(
    roots: Roots, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.setattr(VOC, "published", {"trainaug": 9, "aug": 4})
    assert run(roots)[0] == 0
