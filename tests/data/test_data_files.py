"""Broken files: each is one line with the file, the fault, what is needed and the way out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnfd_ray.data.datasets.camvid import CamVid
from attnfd_ray.data.datasets.voc import VOC, ToyScenes
from attnfd_ray.data.files import read_image, read_mask
from attnfd_ray.errors import DataError

Make = Callable[..., Path]
HOME = Path("VOCdevkit/VOC2012")


def message(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 2
    return text


def test_a_file_cut_short_is_refused_by_name(toy: Path, tmp_path: Path) -> None:
    home = toy / HOME
    refused = 0
    for source, read in (
        (home / "JPEGImages/train_00000.jpg", read_image),
        (home / "SegmentationClass/train_00000.png", read_mask),
    ):
        whole, cut = source.read_bytes(), tmp_path / source.name
        # the last bytes are only an end marker
        for length in range(0, len(whole) - 20, len(whole) // 50):
            cut.write_bytes(whole[:length])
            text = message(lambda: read(cut))  # noqa: B023
            assert text.startswith(f"{cut}: cannot be read (")
            assert text.endswith("); needed is a whole image file: copy it again")
            refused += 1
    assert refused >= 80


def test_a_directory_in_place_of_an_image_is_refused_by_name(tmp_path: Path) -> None:
    expected = (
        f"{tmp_path}: cannot be read ([Errno 21] Is a directory:); needed is a whole image file: "
        "copy it again"
    )
    assert message(lambda: read_image(tmp_path)) == expected


@pytest.mark.parametrize(
    ("mode", "name"), [("RGB", "RGB"), ("I;16", "I;16"), ("1", "1"), ("LA", "LA"), ("RGBA", "RGBA")]
)
def test_a_mask_that_is_not_one_byte_a_pixel_is_refused(
    make_voc: Make, mode: str, name: str
) -> None:
    root = make_voc()
    path = root / HOME / "SegmentationClass/a1.png"
    Image.new(mode, (31, 20)).save(path)
    assert message(lambda: VOC(root, "train").read(1)) == (
        f"{path}: the mask has mode {name}; needed is one class id a pixel, an 8-bit PNG with a "
        "palette (P) or grey (L): convert it first"
    )


def test_a_sixteen_bit_image_is_refused(make_camvid: Make) -> None:
    root = make_camvid(lists=False)
    path = root / "train/0.png"
    Image.new("I;16", (24, 18)).save(path)
    text = f"{path}: the image has mode I;16; needed are 8 bits a channel: convert it first"
    assert message(lambda: CamVid(root, "train").read(0)) == text


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_an_image_without_three_channels_is_read_as_rgb(make_camvid: Make, mode: str) -> None:
    root = make_camvid(lists=False)
    Image.new(mode, (24, 18)).save(root / "train/0.png")
    assert CamVid(root, "train").read(0)[0].shape == (3, 18, 24)


def test_a_mask_of_another_size_is_refused(make_voc: Make) -> None:
    root = make_voc()
    path = root / HOME / "SegmentationClass/a0.png"
    Image.new("L", (20, 30)).save(path)
    assert message(lambda: VOC(root, "train").read(0)) == (
        f"{path}: the mask is 20x30 and its image 30x20; needed is the same size: check that they "
        "belong together"
    )


def test_unknown_values_are_named(make_voc: Make) -> None:
    root = make_voc()
    path = root / HOME / "SegmentationClass/a0.png"
    label = np.zeros((20, 30), np.uint8)
    label[3, :7] = (12, 20, 21, 99, 200, 254, 255)
    Image.fromarray(label).save(path)
    assert message(lambda: VOC(root, "train").read(0)) == (
        f"{path}: mask values 21, 99, 200, 254 are no class; needed are 0..20 or 255: check that "
        "data.name is what data.root holds"
    )
    assert "mask values 12, 20, 21, 99, 200, ... are no class; needed are 0..11" in message(
        lambda: ToyScenes(root, "train").read(0)
    )


def test_a_root_that_is_not_there_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    text = f"{root}: no such directory; set data.root to the directory of the dataset"
    assert message(lambda: CamVid(root, "train")) == text


def test_a_directory_without_voc_is_refused(tmp_path: Path) -> None:
    assert message(lambda: VOC(tmp_path, "train")) == (
        f"{tmp_path}: no VOC 2012 here; needed is ImageSets/Segmentation in it or in VOC2012, "
        "VOCdevkit/VOC2012, VOC2012/VOC2012, VOCdevkit/VOC2012/VOC2012: set data.root to the "
        "directory that holds VOCdevkit"
    )


def test_a_split_without_a_list_is_refused_and_the_lists_are_named(
    make_voc: Make, make_camvid: Make
) -> None:
    root = make_voc()
    assert message(lambda: VOC(root, "test")) == (
        f"{root}: there is no list {HOME}/ImageSets/Segmentation/test.txt; there is: train, val; "
        "set data.train_split and data.val_split"
    )
    root = make_camvid()
    assert message(lambda: CamVid(root, "test")) == (
        f"{root}: there is neither test.txt nor a directory test; needed is CamVid as in the "
        "SegNet tutorial: set data.root, data.train_split and data.val_split"
    )


def test_missing_files_are_counted_and_the_first_named(make_voc: Make) -> None:
    root = make_voc()
    for name in ("JPEGImages/a0.jpg", "SegmentationClass/a0.png", "JPEGImages/a3.jpg"):
        (root / HOME / name).unlink()
    assert message(lambda: VOC(root, "train").checked()) == (
        f"{root}: 3 of the 10 files of split 'train' are missing: {HOME}/JPEGImages/a0.jpg, "
        f"{HOME}/SegmentationClass/a0.png, {HOME}/JPEGImages/a3.jpg; add them or take them off the "
        "list"
    )


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("\n \n", "lists no image; needed is at least one"),
        ("a0\na1\na0\n", "lists 1 ids more than once: a0; list each id once"),
        (
            "a0\n../a1\n",
            "lists files outside the dataset: ../a1; needed are names inside data.root",
        ),
        (
            "a0\n/etc/a1\n",
            "lists files outside the dataset: /etc/a1; needed are names inside data.root",
        ),
    ],
)
def test_a_wrong_list_is_refused(make_voc: Make, lines: str, complaint: str) -> None:
    root = make_voc()
    (root / HOME / "ImageSets/Segmentation/train.txt").write_text(lines)
    assert message(lambda: VOC(root, "train").checked()) == f"{root}: split 'train' {complaint}"


def test_a_camvid_line_must_be_a_pair_inside_the_root(make_camvid: Make) -> None:
    root = make_camvid()
    (root / "train.txt").write_text("train/0.png\n")
    text = (
        f"{root / 'train.txt'}: 'train/0.png' is not a pair; needed is an image and its mask on "
        "each line"
    )
    assert message(lambda: CamVid(root, "train").checked()) == text
    (root / "train.txt").write_text("../0.png trainannot/0.png\n")
    assert "lists files outside the dataset" in message(lambda: CamVid(root, "train").checked())


def test_a_list_that_is_not_text_is_refused(make_voc: Make) -> None:
    root = make_voc()
    path = root / HOME / "ImageSets/Segmentation/train.txt"
    path.write_bytes(b"\xff\xfe\x00a")
    text = f"{path}: cannot be read as text; needed is a list with one image a line"
    assert message(lambda: VOC(root, "train").checked()) == text


def test_a_file_of_a_format_that_is_a_program_is_not_drawn(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (4, 4)).save(path, format="EPS")
    assert message(lambda: read_image(path)) == (
        f"{path}: cannot be read (cannot identify image file); needed is a whole image file: copy "
        "it again"
    )
