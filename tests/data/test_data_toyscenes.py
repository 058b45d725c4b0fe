"""The generated set: its content, that it is reproducible, and that it is written atomically."""

import dataclasses
import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from attnfd_ray.cli import cli
from attnfd_ray.data.datasets.voc import ToyScenes
from attnfd_ray.data.generate import toyscenes
from attnfd_ray.data.generate.patterns import TYPICAL
from attnfd_ray.data.generate.scenes import CLASS_NAMES, CONFUSABLE, Scene, draw_scene
from attnfd_ray.data.generate.toyscenes import write_toyscenes
from attnfd_ray.errors import DataError

HOME = Path("VOCdevkit/VOC2012")


def read_all(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images_NHW3 and labels_NHW."""
    dataset = ToyScenes(root, split)
    images, labels = zip(*(dataset.read(index) for index in range(len(dataset))), strict=True)
    return np.stack([image.permute(1, 2, 0).numpy() for image in images]), np.stack(
        [label.numpy() for label in labels]
    )


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_the_masks_are_these_on_every_machine(toy: Path) -> None:
    digests = {
        split: hashlib.sha256(read_all(toy, split)[1].tobytes()).hexdigest()[:16]
        for split in ("train", "val")
    }
    assert digests == {"train": "76cca6a737c282c0", "val": "68c25b7708ee8e04"}


def test_the_images_are_nearly_these_on_every_machine(toy: Path) -> None:
    # JPEG encoders and decoders differ by a grey level or two a pixel, which does not change a mean
    # over 4096 pixels.
    means = read_all(toy, "val")[0][:4].mean((1, 2))
    expected = [
        [105.8, 100.6, 75.6],
        [111.8, 117.3, 129.0],
        [149.7, 157.7, 148.2],
        [96.1, 75.3, 64.9],
    ]
    np.testing.assert_allclose(means, expected, atol=0.5)


def test_every_class_is_in_both_splits_and_the_masks_are_palette_pngs(toy: Path) -> None:
    for split in ("train", "val"):
        assert set(np.unique(read_all(toy, split)[1])) == {*range(12), 255}
    masks = sorted((toy / HOME / "SegmentationClass").glob("*.png"))
    assert len(masks) == 48
    for path in masks:
        with Image.open(path) as mask:
            assert (mask.mode, mask.size) == ("P", (64, 64))
            assert mask.getpalette()[3:6] == [128, 0, 0]  # type: ignore[index]


def test_colour_alone_does_not_separate_the_classes(toy: Path) -> None:
    def cells_and_labels(split: str) -> tuple[np.ndarray, np.ndarray]:
        images, labels = read_all(toy, split)
        objects = (labels > 0) & (labels != 255)
        return images[objects] // 64 @ np.array([16, 4, 1]), labels[objects]

    cells, labels = cells_and_labels("train")
    votes = np.zeros((64, 12), np.int64)
    np.add.at(votes, (cells, labels), 1)
    cells, labels = cells_and_labels("val")
    assert (votes.argmax(1)[cells] == labels).mean() <= 0.20


def test_background_takes_most_and_every_object_class_some(toy: Path) -> None:
    labels = read_all(toy, "train")[1]
    share = np.bincount(labels.ravel(), minlength=256) / labels.size
    assert 0.65 < share[0] < 0.85
    assert 0.03 < share[255] < 0.09
    assert share[1:12].min() > 0.002
    assert share[1:12].max() < 0.05


def test_an_image_does_not_depend_on_how_many_there_are(toy: Path, tmp_path: Path) -> None:
    write_toyscenes(tmp_path / "few", train=3, val=2)
    few, many = files(tmp_path / "few"), files(toy)
    images = [name for name in few if name.endswith((".jpg", ".png"))]
    assert len(images) == 10
    assert all(few[name] == many[name] for name in images)


def test_another_seed_is_another_set(toy: Path, tmp_path: Path) -> None:
    write_toyscenes(tmp_path / "other", train=2, val=2, seed=1)
    other, first = files(tmp_path / "other"), files(toy)
    images = [name for name in other if name.endswith((".jpg", ".png"))]
    assert len(images) == 8
    assert all(other[name] != first[name] for name in images)


def test_label_noise_changes_train_labels_to_confusable_classes_and_nothing_else(
    tmp_path: Path,
) -> None:
    knobs = {"train": 12, "val": 3}
    write_toyscenes(tmp_path / "clean", noise=0, **knobs)
    write_toyscenes(tmp_path / "noisy", noise=1, **knobs)
    clean_images, clean = read_all(tmp_path / "clean", "train")
    noisy_images, noisy = read_all(tmp_path / "noisy", "train")
    np.testing.assert_array_equal(clean_images, noisy_images)
    pairs = {
        (CLASS_NAMES[a], CLASS_NAMES[b])
        for a, b in zip(clean.ravel(), noisy.ravel(), strict=True)
        if a < 12
    }
    assert all(after in CONFUSABLE.get(before, (before,)) for before, after in pairs)
    assert ("disc", "ring") in pairs
    np.testing.assert_array_equal(
        read_all(tmp_path / "clean", "val")[1], read_all(tmp_path / "noisy", "val")[1]
    )


def test_patterns_change_how_objects_look_and_not_how_they_are_labelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one object an image, no later drawing depends on whether it has its pattern."""
    plain = Scene(size=64, objects=(1, 1), radius=(20, 30), noise=0.0)
    patterned = dataclasses.replace(plain, patterns=1.0)
    for index in range(20):
        (image, label), (other, same) = (
            draw_scene(np.random.default_rng(index), scene, []) for scene in (plain, patterned)
        )
        np.testing.assert_array_equal(label, same)
        assert (image != other)[(label > 0) & (label < 255)].any()


def test_every_object_class_has_a_pattern_of_its_own() -> None:
    assert TYPICAL.keys() == set(CLASS_NAMES[1:])
    for width in (2, 3, 4, 6):
        y, x = np.mgrid[: 12 * width, : 12 * width]
        masks = {name: pattern(x, y, width) for name, pattern in TYPICAL.items()}
        assert all(0.15 < mask.mean() < 0.85 for mask in masks.values())
        # no two patterns are equal, not even after a shift
        for one, other in itertools.combinations(masks, 2):
            shifts = itertools.product(range(4 * width), repeat=2)
            assert not any(
                (np.roll(masks[one], shift, (0, 1)) == masks[other]).all() for shift in shifts
            ), (one, other)


def test_half_of_the_objects_have_their_pattern_if_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patterned: list[str] = []
    monkeypatch.setattr(
        "attnfd_ray.data.generate.scenes._typical",
        lambda rng, name, size: patterned.append(name) or np.zeros(()),
    )
    scene = Scene(size=32, objects=(4, 4), radius=(10, 20), noise=0.0, patterns=0.5)
    for index in range(100):
        draw_scene(np.random.default_rng(index), scene, [])
    assert 160 <= len(patterned) <= 240  # 400 objects, four standard deviations
    assert set(patterned) == set(CLASS_NAMES[1:])


def test_an_old_set_without_the_patterns_knob_has_no_patterns(tmp_path: Path) -> None:
    write_toyscenes(tmp_path / "toy", train=1, val=1)
    manifest = tmp_path / "toy" / toyscenes.MANIFEST
    knobs = json.loads(manifest.read_text())
    del knobs["patterns"]
    manifest.write_text(json.dumps(knobs))
    assert not write_toyscenes(tmp_path / "toy", train=1, val=1)
    with pytest.raises(DataError, match=r"patterns 0\.0, not 0\.5"):
        write_toyscenes(tmp_path / "toy", train=1, val=1, patterns=0.5)


def test_boats_are_below_and_planes_above_one_horizon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnfd_ray.data.generate.scenes._DRAWN", ("boat", "plane"))
    scene = Scene(size=96, objects=(1, 1), radius=(12, 12), noise=0.0)
    heights: dict[int, list[float]] = {8: [], 9: []}
    for index in range(60):
        label = draw_scene(np.random.default_rng(index), scene, [])[1]
        for name, found in heights.items():
            if (label == name).any():
                found.append(float(np.nonzero(label == name)[0].mean()))
    assert min(map(len, heights.values())) > 15
    assert np.mean(heights[8]) > 60 > 36 > np.mean(heights[9])
    assert min(heights[8]) > 28  # no horizon is above 30 percent of the height
    assert max(heights[9]) < 68


def test_toyscenes_is_written_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from attnfd_ray.data.generate.toyscenes import write_toyscenes; "
        f"write_toyscenes({str(tmp_path / 'toy')!r}, train=1, val=1); sys.exit('torch' in "
        "sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_writing_the_same_again_does_nothing(tmp_path: Path) -> None:
    root = tmp_path / "a" / "toy"
    assert write_toyscenes(root, train=2, val=1)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert not write_toyscenes(root, train=2, val=1)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert [path.name for path in root.parent.iterdir()] == ["toy"]


def test_an_empty_directory_is_filled(tmp_path: Path) -> None:
    assert write_toyscenes(tmp_path, train=1, val=1)
    assert (tmp_path / toyscenes.MANIFEST).is_file()


@pytest.mark.parametrize("manifest", [None, "no json", "[1, 2]", "3"])
def test_another_directory_is_left_unchanged(tmp_path: Path, manifest: str | None) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    if manifest is not None:
        (tmp_path / toyscenes.MANIFEST).write_text(manifest)
    before = files(tmp_path)
    with pytest.raises(DataError) as caught:
        write_toyscenes(tmp_path, train=1, val=1)
    assert str(caught.value) == (
        f"{tmp_path}: exists and holds no toyscenes; needed is a new or empty directory: remove "
        "this one or choose another"
    )
    assert files(tmp_path) == before


def test_a_set_with_other_knobs_is_left_unchanged(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    write_toyscenes(root, train=2, val=1)
    before = files(root)
    with pytest.raises(DataError) as caught:
        write_toyscenes(root, train=3, val=1, noise=0.2)
    assert str(caught.value) == (
        f"{root}: holds other toyscenes (train 2, not 3; noise 0.1, not 0.2); needed is a new or "
        "empty directory: remove this one or choose another"
    )
    assert files(root) == before


def test_an_interrupted_writer_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(toyscenes, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_toyscenes(tmp_path / "toy", train=1, val=1)
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_the_second_finds_the_first_ones_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, write_split = tmp_path / "toy", toyscenes._write_split

    def overtaken(*args: object) -> None:
        monkeypatch.setattr(toyscenes, "_write_split", write_split)
        assert write_toyscenes(root, train=1, val=1)
        write_split(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(toyscenes, "_write_split", overtaken)
    assert not write_toyscenes(root, train=1, val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    assert len(ToyScenes(root, "train")) == 1


def test_a_directory_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    root = tmp_path / "file" / "toy"
    with pytest.raises(DataError) as caught:
        write_toyscenes(root)
    assert (
        str(caught.value)
        == f"{root}: cannot be written ([Errno 17] File exists: '{tmp_path / 'file'}'); choose "
        "another directory"
    )


def test_knobs_out_of_range_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_toyscenes(tmp_path / "toy", size=8, noise=2, patterns=-1, objects=(3, 2))
    assert str(caught.value) == (
        "toyscenes: size 8 is not 32..1024 pixels; noise 2 is not 0..1; patterns -1 is not 0..1; "
        "objects (3, 2) are not two rising numbers in 1..50"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_command_reports_what_it_wrote_in_one_line(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    arguments = [
        "data",
        "toyscenes",
        str(root),
        "--train",
        "3",
        "--val",
        "2",
        "--size",
        "32",
        "--seed",
        "5",
        "--noise",
        "0",
        "--patterns",
        "0.5",
    ]
    first = CliRunner().invoke(cli, arguments)
    assert first.exit_code == 0, first.output
    assert first.output.startswith(f"{root}: 3 train and 2 val images of 32x32 pixels, written in ")
    again = CliRunner().invoke(cli, arguments)
    assert (
        again.output
        == f"{root}: 3 train and 2 val images of 32x32 pixels, already there, nothing to do\n"
    )
    knobs = json.loads((root / toyscenes.MANIFEST).read_text())
    assert (knobs["size"], knobs["seed"], knobs["noise"], knobs["patterns"]) == (32, 5, 0, 0.5)
    assert len(ToyScenes(root, "val")) == 2


@pytest.mark.parametrize("size", [32, 96])
def test_other_sizes_are_drawn_alike(size: int) -> None:
    scene = Scene(size=size, objects=(3, 6), radius=(10, 21), noise=0.0)
    labels = np.stack(
        [draw_scene(np.random.default_rng(index), scene, [])[1] for index in range(40)]
    )
    assert labels.shape == (40, size, size)
    assert 0.6 < (labels == 0).mean() < 0.85
