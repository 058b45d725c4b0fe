"""`attnfd-ray data check` and `data show`: their output, files and exit codes."""

import json
import re
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from attnfd_ray import cli
from attnfd_ray.config.loader import load_experiment
from attnfd_ray.data.checker.contact_sheet import denormalised
from attnfd_ray.data.checker.overlays import overlay
from attnfd_ray.data.datasets.voc import ToyScenes
from attnfd_ray.data.generate.toyscenes import write_toyscenes
from attnfd_ray.data.loading.loader import TrainLoader
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.data.loading.transforms import normalised
from attnfd_ray.data.toyscenes_classes import CLASS_NAMES

HOME = "toy/VOCdevkit/VOC2012"


OWN = """
from attnfd_ray.data.datasets.voc import ToyScenes

class Own(ToyScenes):
    class_names = ("[red]<b>sky</b>", *ToyScenes.class_names[1:])
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    write_toyscenes(tmp_path / "toy", train=12, val=6)
    tree = {
        "experiment": "e",
        "data": {"name": "toyscenes", "root": "toy", "crop": [48, 48]},
        "teacher": {"checkpoint": "teacher.safetensors"},
        "student": {"width": 0.125},
        "method": {"name": "attnfd"},
        "train": {"epochs": 1, "batch_size": 5, "seed": 3},
    }
    (tmp_path / "exp.yaml").write_text(yaml.safe_dump(tree))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["attnfd-ray", "data", *arguments])
        with pytest.raises(SystemExit) as raised:
            cli.main()
        printed = capsys.readouterr()
        return raised.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def broken(run, tmp_path):
    """Break two files of the train split and one of val."""
    for name in (
        "JPEGImages/train_00003.jpg",
        "SegmentationClass/train_00007.png",
        "JPEGImages/val_00005.jpg",
    ):
        (tmp_path / HOME / name).write_text("broken")


def test_a_good_set_is_printed_in_tables_of_eighty_columns(run):
    code, out, err = run("check", "exp.yaml", "--full")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines[1:])) <= 80  # the first is a path, which is not folded
    assert lines[0].startswith("toyscenes: /")
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["Split"] == ["Images", "Expected", "Read", "Classes", "seen", "Ignored", "%"]
    assert rows["val"][:3] == ["6", "-", "6"]
    assert set(CLASS_NAMES) <= rows.keys()
    assert rows["background"][1::2] == ["12", "6"]
    assert re.fullmatch("data_hash: [0-9a-f]{16}", lines[-1])


def test_all_errors_are_printed_one_per_line_and_the_exit_code_is_2(run, broken):
    code, out, err = run("check", "exp.yaml", "--full")
    assert code == 2
    assert [
        line.partition(": cannot be read (")[0].rpartition("/")[2] for line in err.splitlines()
    ] == [
        *("train_00003.jpg", "train_00007.png", "val_00005.jpg"),
    ]
    assert "data_hash" in out


def test_without_full_a_few_files_are_read(run, broken):
    code, out, err = run("check", "exp.yaml")
    assert code == 2
    assert err.count("\n") == 3  # images 0, 3, 7, 11 of 12 and 0, 1, 3, 5 of 6
    assert run("check", "exp.yaml", "--set", "data.val_split=train")[0] == 2
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert (rows["train"][2], rows["val"][2]) == ("2", "3")


def test_json_is_one_object_with_the_same_content(run, broken):
    code, out, err = run("check", "exp.yaml", "--full", "--json")
    assert code == 2
    report = json.loads(out)
    assert report["errors"] == err.splitlines()
    assert [split["num_read"] for split in report["splits"]] == [10, 5]
    assert [found["name"] for found in report["splits"][0]["classes"]] == list(CLASS_NAMES)
    assert len(report["data_hash"]) == 16


def test_a_set_that_is_not_there_is_one_line(run):
    code, out, err = run("check", "exp.yaml", "--set", "data.root=nowhere", "--html", "page.html")
    assert (code, err.count("no such directory")) == (2, 1)
    assert out.splitlines()[-1] == "data_hash: none while files are missing"


def test_the_page_loads_no_other_file_and_escapes_every_name(run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_names.py").write_text(OWN)
    code, out, err = run(
        "check", "exp.yaml", "--full", "--html", "page.html", "--set", "data.name=own_names:Own"
    )
    assert (code, err) == (0, "page.html: written\n")
    assert "[red]<b>sky</b>" in out
    page = (tmp_path / "page.html").read_text()
    assert "[red]&lt;b&gt;sky&lt;/b&gt;" in page
    assert "<b>" not in page
    assert not re.search(r"https?:|url\(|@import|<script|<link", page)
    sources = re.findall(r'<img src="([^"]+)"', page)
    assert len(sources) > 2 * len(CLASS_NAMES)
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix in (".html", ".tmp")) == [
        "page.html"
    ]


def test_a_page_takes_its_pictures_of_the_splits_that_were_opened_for_the_check(
    run, monkeypatch, tmp_path
):
    opened = []
    listing = ToyScenes.list_samples
    monkeypatch.setattr(
        ToyScenes, "list_samples", lambda self: opened.append(self) or listing(self)
    )
    assert run("check", "exp.yaml", "--full", "--html", "page.html")[0] == 0
    assert [dataset.split for dataset in opened] == ["train", "val"]


def test_a_page_or_sheet_that_cannot_be_written_is_one_line(run):
    for arguments in (
        ("check", "exp.yaml", "--html", "no/page.html"),
        ("show", "exp.yaml", "-o", "no/sheet.png"),
    ):
        code, _, err = run(*arguments)
        assert code == 2
        assert err == (
            f"{arguments[-1]}: cannot be written (No such file or directory); give a file in a "
            "directory of yours\n"
        )


def test_the_sheet_shows_the_views_of_the_first_epoch(run, tmp_path):
    code, out, err = run("show", "exp.yaml", "-o", "sheet.png", "--count", "7")
    assert (code, out, err) == (0, "sheet.png: 7 views\n", "")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    settings = load_experiment(tmp_path / "exp.yaml")
    dataset = ToyScenes(tmp_path / "toy", "train")
    loader = TrainLoader(
        dataset, settings.data, readers=ReaderPool([dataset]), global_batch_size=5, seed=3
    )
    views = [view for batch in loader.epoch(1) for view in zip(*batch, strict=True)]
    side = 48 * 6  # the largest multiple within 320
    for number, (image, label) in enumerate(views[:7]):
        top, left = (6 + at * (side + 6) for at in divmod(number, 3))
        tile = sheet[top : top + side : 6, left : left + side : 6]
        expected = overlay(denormalised(image), label.numpy().astype(np.uint8), dataset.palette)
        np.testing.assert_array_equal(tile, expected)
    assert sheet.shape[0] > 6 + 3 * (side + 6) + 14  # and a legend below


def test_the_sheet_ends_with_the_first_epoch(run):
    assert run("show", "exp.yaml", "-o", "sheet.png", "--count", "99")[1] == "sheet.png: 10 views\n"
    limited = run("show", "exp.yaml", "-o", "sheet.png", "--set", "train.steps_per_epoch=1")
    assert limited[1] == "sheet.png: 5 views\n"


def test_a_broken_image_ends_the_sheet_in_one_line_and_leaves_no_file(run, broken, tmp_path):
    code, out, err = run("show", "exp.yaml", "-o", "sheet.png")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "sheet.png").exists()


def test_normalising_is_undone():
    image_HWC = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    import torch

    assert (
        denormalised(normalised(torch.from_numpy(image_HWC).permute(2, 0, 1))) == image_HWC
    ).all()


def test_pixels_that_do_not_count_are_hatched_and_others_tinted():
    picture = overlay(
        np.zeros((16, 16, 3), np.uint8),
        np.array([[255] * 16] * 8 + [[1] * 16] * 8, np.uint8),
        [(0,) * 3, (200, 0, 0)],
    )
    assert {tuple(colour) for colour in picture[:8].reshape(-1, 3).tolist()} == {
        (48, 48, 48),
        (88, 88, 88),
    }
    assert {tuple(colour) for colour in picture[8:].reshape(-1, 3).tolist()} == {(100, 0, 0)}
