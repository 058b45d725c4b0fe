"""Every way to break a dataset gives one line that names the file or list and the way out."""

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.checker.check import check_data, quick_check
from attnfd_ray.errors import DataError

Make = Callable[..., Path]
Settings = Callable[..., DataSettings]
Break = Callable[["Layout"], Any]


class Layout(NamedTuple):
    """The files of a layout: a train image, its mask, their list, and a val image."""

    home: Path
    image: str
    mask: str
    split: str
    line: str
    val_image: str

    def path(self, name: str) -> Path:
        return self.home / getattr(self, name)


LAYOUTS = {
    "voc": (
        "VOCdevkit/VOC2012",
        "JPEGImages/a0.jpg",
        "SegmentationClass/a0.png",
        "ImageSets/Segmentation/train.txt",
        "{}",
        "JPEGImages/b0.jpg",
    ),
    "camvid": (
        "",
        "train/0.png",
        "trainannot/0.png",
        "train.txt",
        "train/{0}.png trainannot/{0}.png",
        "val/4.png",
    ),
}


def cut(name: str, share: float) -> Break:
    def broken(at: Layout) -> None:
        content = at.path(name).read_bytes()
        at.path(name).write_bytes(content[: int(len(content) * share)])

    return broken


def holds(name: str, content: bytes) -> Break:
    return lambda at: at.path(name).write_bytes(content)


def drawn(name: str, mode: str, size: tuple[int, int] | None = None) -> Break:
    """Write a blank picture, of the size of the image unless `size` is given."""

    def broken(at: Layout) -> None:
        picture = Image.new(mode, size or Image.open(at.path("image")).size)
        picture.save(at.path(name), "PNG")

    return broken


def valued(value: int) -> Break:
    """Give one pixel of the mask a value."""

    def broken(at: Layout) -> None:
        values = np.zeros(Image.open(at.path("image")).size[::-1], np.uint8)
        values[2, 3] = value
        Image.fromarray(values).save(at.path("mask"))

    return broken


def replaced(name: str, make: Callable[[Path], Any]) -> Break:
    def broken(at: Layout) -> None:
        at.path(name).unlink()
        make(at.path(name))

    return broken


def listed(*ids: str) -> Break:
    """Add ids to the list, in the format of the layout."""

    def broken(at: Layout) -> None:
        with at.path("split").open("a") as stream:
            stream.writelines("\n" + at.line.format(sample_id) for sample_id in ids)

    return broken


def chunk(kind: bytes, content: bytes, *, check: int | None = None) -> bytes:
    crc = zlib.crc32(kind + content) if check is None else check
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(width: int, height: int, *chunks: bytes, colour: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(chunks)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


WHOLE = "needed is a whole image file: copy it again"
CONVERT = "convert it first"
TOGETHER = "check that they belong together"
ADD = "add them or take them off the list"
ONCE = "list each id once"
INSIDE = "needed are names inside data.root"
NAME = "check that data.name is what data.root holds"
LIST = "needed is a list with one image a line"
IN_PLACE = "put image files in their place"
LINKS = "check who may read them and where links lead"

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0"

# how it is broken, the file or list that the line names, the end of the line
Case = tuple[Break, str, str]


def remove(name: str) -> Break:
    return lambda at: at.path(name).unlink()


def cases_of_file(name: str) -> dict[str, Case]:
    """Return the ways in which an image or a mask file can be broken."""
    cases: dict[str, Case] = {}
    for share in (0.01, 0.05, 0.2, 0.5, 0.8):
        cases[f"{name} cut to {share:.0%}"] = (cut(name, share), name, WHOLE)
    unreadable = {
        "of text": b"an image\n" * 99,
        "of zeros": bytes(4096),
        "of HTML": b"<!doctype html><p>404",
        "is a Git LFS pointer": LFS_POINTER,
        "is a bomb": png(40_000, 40_000),
        "without pixels": png(24, 18),
        "of no width": png(0, 18),
    }
    for kind, content in unreadable.items():
        cases[f"{name} {kind}"] = (holds(name, content), name, WHOLE)
    cases[f"{name} empty"] = (holds(name, b""), name, "copy them again")
    cases[f"{name} missing"] = (remove(name), name, ADD)
    cases[f"{name} a directory"] = (replaced(name, Path.mkdir), name, IN_PLACE)
    cases[f"{name} a pipe"] = (replaced(name, os.mkfifo), name, IN_PLACE)
    to_itself = replaced(name, lambda path: path.symlink_to(path))
    cases[f"{name} a link to itself"] = (to_itself, name, LINKS)
    to_nothing = replaced(name, lambda path: path.symlink_to("nothing"))
    cases[f"{name} a link to nothing"] = (to_nothing, name, ADD)
    return cases


def cases_of_pixels() -> dict[str, Case]:
    """Return the ways in which a decoded image or mask can be wrong."""
    palette = png(24, 18, chunk(b"PLTE", bytes(9), check=0), colour=3)
    cases: dict[str, Case] = {
        "image of 16 bits": (drawn("image", "I;16"), "image", CONVERT),
        "mask with a broken palette": (holds("mask", palette), "mask", WHOLE),
    }
    for mode in ("RGB", "RGBA", "1", "LA", "I;16"):
        cases[f"mask {mode}"] = (drawn("mask", mode), "mask", CONVERT)
    for size in ((1, 1), (20, 30), (3000, 2)):
        cases[f"mask of {size}"] = (drawn("mask", "L", size), "mask", TOGETHER)
    for value in (21, 99, 254):
        cases[f"value {value}"] = (valued(value), "mask", NAME)
    return cases


def cases_of_list() -> dict[str, Case]:
    """Return the ways in which a list can be broken."""
    image_as_list: Break = lambda at: shutil.copy(at.path("mask"), at.path("split"))  # noqa: E731
    cases: dict[str, Case] = {
        "an id twice": (listed("0", "0"), "split", ONCE),
        "an id too long": (listed("x" * 300), "x", LINKS),
        "list empty": (holds("split", b""), "split", "needed is at least one"),
        "list of blank lines": (holds("split", b"\n \n\t\n"), "split", "needed is at least one"),
        "list that is no text": (holds("split", b"\xff\xfe\x00a\x00"), "split", LIST),
        "list that is an image": (image_as_list, "split", LIST),
    }
    for name in ("../../../x", "/../../../x", "a/../../../../b"):
        cases[f"id {name!r}"] = (listed(name), "split", INSIDE)
    for name in ("no-such", "..\\x", "a\0b", "~x", "%2e%2e"):
        cases[f"id {name!r}"] = (listed(name), "x", ADD)
    return cases


CASES = cases_of_file("image") | cases_of_file("mask") | cases_of_pixels() | cases_of_list()


@pytest.fixture(params=["voc", "camvid"])
def at(request: pytest.FixtureRequest) -> Layout:
    home, *names = LAYOUTS[request.param]
    return Layout(request.getfixturevalue(f"make_{request.param}")() / home, *names)


def data_of(at: Layout, settings: Settings, **others: Any) -> DataSettings:
    name = "voc" if at.line == "{}" else "camvid"
    return settings(at.home, **{"name": name, **others})


def the_line(data: DataSettings, *, quick: bool = True) -> str:
    """Return the one error of the full check; with `quick`, the quick check must find it too."""
    (line,) = check_data(data, full=True).errors
    assert line.isprintable()
    if quick:
        with pytest.raises(DataError) as caught:
            quick_check(data)
        assert (caught.value.exit_code, caught.value.problems) == (2, [line])
    return line


@pytest.mark.parametrize("case", CASES)
def test_a_broken_input_is_one_line_with_a_name_and_a_way_out(
    at: Layout, settings: Settings, case: str
) -> None:
    broken, name, remedy = CASES[case]
    if name == "split" and remedy == ONCE and at.line == "{}":
        broken = listed("a0")
    broken(at)
    line = the_line(data_of(at, settings))
    assert line.endswith(remedy), line
    assert str(at.home) in line
    expected = {"split": ("split 'train'", at.split), "x": ("split 'train'",)}.get(name) or (
        getattr(at, name),
    )
    assert any(words in line for words in expected), line


def test_there_are_many_ways() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("value", [12, 20])
def test_a_value_above_the_classes_of_camvid_is_refused(
    make_camvid: Make, settings: Settings, value: int
) -> None:
    at = Layout(make_camvid(), *LAYOUTS["camvid"][1:])
    valued(value)(at)
    assert the_line(data_of(at, settings)).startswith(
        f"{at.path('mask')}: mask values {value} are no class; needed "
    )


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"name": "camvid"}, "needed is CamVid as in the SegNet tutorial: set data.root"),
        (
            {"train_split": "tain"},
            "there is no list ImageSets/Segmentation/tain.txt; there is: train, val; set",
        ),
        (
            {"train_split": "../train"},
            "split '../train' is outside the dataset; needed is the name of a list in it",
        ),
        (
            {"val_split": "/etc/passwd"},
            "split '/etc/passwd' is outside the dataset; needed is the name of a list",
        ),
        (
            {"val_split": "a\0b"},
            "there is no list ImageSets/Segmentation/a\\x00b.txt; there is: train, val; set",
        ),
        (
            {"val_split": "train"},
            "5 images of val split 'train' are also in train split 'train' (a0, a1, a2, a3, a4",
        ),
        ({"pad_label": 21}, "data.pad_label 21: voc has no such class; needed is 0..20, or 255"),
        (
            {"root": "none"},
            "none: no such directory; set data.root to the directory of the dataset",
        ),
        ({"root": "ImageSets/Segmentation/val.txt"}, "val.txt: no such directory; set data.root"),
        ({"root": "ImageSets"}, "set data.root to the directory that holds VOCdevkit"),
    ],
)
def test_settings_that_do_not_fit_the_files_are_refused(
    make_voc: Make, settings: Settings, others: dict[str, Any], words: str
) -> None:
    rest = dict(others)
    root = make_voc() / "VOCdevkit/VOC2012" / rest.pop("root", "")
    errors = check_data(settings(root, **rest), full=True).errors
    assert words in errors[0]
    assert len(errors) == (
        2 if "name" in others else 1
    )  # one line per split where each lacks its own list


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("JPEGImages", "5 of the 10 files of split 'train' are missing"),
        ("SegmentationClass", "5 of the 10 files of split 'train' are missing"),
        ("ImageSets/Segmentation", "no VOC 2012 here"),
    ],
)
def test_a_missing_directory_is_a_line_a_split(
    make_voc: Make, settings: Settings, gone: str, words: str
) -> None:
    root = make_voc()
    shutil.rmtree(root / "VOCdevkit/VOC2012" / gone)
    errors = check_data(settings(root), full=True).errors
    assert words in errors[0]
    assert len(errors) == (1 if gone.startswith("ImageSets") else 2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_may_not_be_read_is_refused(at: Layout, settings: Settings) -> None:
    folder = at.path("mask").parent
    folder.chmod(0)
    try:
        assert LINKS in check_data(data_of(at, settings), full=True).errors[0]
    finally:
        folder.chmod(0o700)


def test_a_root_that_may_not_be_entered_is_refused(
    at: Layout, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_dir(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    data = data_of(at, settings)
    monkeypatch.setattr(Path, "is_dir", is_dir)
    assert (
        the_line(data)
        == f"{at.home}: cannot be read (Permission denied); check who may read data.root"
    )


def test_blank_lines_in_a_list_are_left_out(at: Layout, settings: Settings) -> None:
    before = check_data(data_of(at, settings), full=True)
    at.path("split").write_text("\n\n \n" + at.path("split").read_text().replace("\n", "\n\n"))
    assert check_data(data_of(at, settings), full=True) == before
    assert before.errors == ()


def test_an_id_in_both_splits_is_one_line(make_voc: Make, settings: Settings) -> None:
    home = make_voc() / "VOCdevkit/VOC2012"
    with (home / "ImageSets/Segmentation/val.txt").open("a") as stream:
        stream.write("a3\n")
    assert "1 images of val split 'val' are also in train split 'train' (a3)" in the_line(
        settings(home)
    )


def test_the_same_image_in_train_and_val_is_one_line_that_names_both(
    at: Layout, settings: Settings
) -> None:
    with Image.open(at.path("image")) as image:
        size = image.size
    shutil.copy(at.path("image"), at.path("val_image"))
    mask = at.path("val_image").with_suffix(".png").name
    folder = "SegmentationClass" if at.line == "{}" else "valannot"
    Image.new("L", size).save(at.home / folder / mask)
    assert the_line(data_of(at, settings), quick=False) == (
        f"{at.path('val_image')}: the same image as {at.path('image')} of train split 'train'; a "
        "score needs images not learned from: take one off its list"
    )


def test_both_files_of_a_pair_are_checked_even_if_the_first_is_broken(
    at: Layout, settings: Settings
) -> None:
    for name in ("image", "mask"):
        cut(name, 0.5)(at)
    errors = check_data(data_of(at, settings), full=True).errors
    assert [line.partition(": ")[0] for line in errors] == [
        str(at.path("image")),
        str(at.path("mask")),
    ]


def test_a_tree_with_many_faults_has_them_all_listed_at_once(
    make_voc: Make, settings: Settings
) -> None:
    home = make_voc(train=9, val=6) / "VOCdevkit/VOC2012"
    images, masks, lists = (
        home / "JPEGImages",
        home / "SegmentationClass",
        home / "ImageSets/Segmentation",
    )
    (images / "a0.jpg").write_bytes(b"")
    (images / "a1.jpg").unlink()
    (masks / "a2.png").unlink()
    (images / "a3.jpg").write_text("no image")
    Image.new("RGB", (34, 20)).save(masks / "a4.png")
    Image.new("L", (20, 34)).save(masks / "a5.png")
    Image.new("L", (36, 20), 77).save(masks / "a6.png")
    shutil.copy(images / "a7.jpg", images / "b0.jpg")
    Image.new("L", (37, 20)).save(masks / "b0.png")
    (masks / "b1.png").write_bytes((masks / "b1.png").read_bytes()[:80])
    (masks / "b2.png").unlink()
    (masks / "b2.png").symlink_to("b2.png")
    (lists / "train.txt").write_text((lists / "train.txt").read_text() + "a8\n../a9\nb4\n")
    errors = check_data(settings(home, pad_label=99), full=True).errors
    expected = [
        "lists files outside the dataset: ../a9",
        "lists 1 ids more than once: a8",
        "are empty: JPEGImages/a0.jpg",
        "files of split 'train' are missing: JPEGImages/a1.jpg, SegmentationClass/a2.png",
        "b2.png",
        "are also in train split 'train' (b4)",
        "data.pad_label 99",
        "a3.jpg: cannot be read",
        "a4.png: the mask has",
        "a5.png: the mask is 20x34",
        "a6.png: mask values 77",
        "b1.png: cannot be read",
        "b0.jpg: the same image as",
    ]
    assert len(errors) == len(expected), "\n".join(errors)
    assert [words for words in expected if sum(words in line for line in errors) != 1] == []
