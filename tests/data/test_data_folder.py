"""A user's own images and masks: what classes.yaml may hold, and one line for each mistake."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.checker.check import check_data, quick_check
from attnfd_ray.data.datasets.folder import Folder
from attnfd_ray.data.palette import voc_colormap
from attnfd_ray.errors import DataError

Make = Callable[..., Path]
ROAD_CAR = "classes: [{name: road, id: 0}, {name: car, id: 1}]\n"
COLOURED = (
    "masks_hold: colors\nclasses: [{name: road, color: [9, 8, 7]}, {name: car, color: [0, 0, 0]}]\n"
    "ignore: [[255, 255, 255]]\n"
)
KEYS = "classes, ignore, images, masks, masks_hold, suffix"


def message(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert len(caught.value.problems) == 1
    return str(caught.value)


def save(path: Path, values: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(
        np.zeros((2, 2, 3), np.uint8) if values is None else np.array(values, np.uint8)
    ).save(path)


def save_pair(root: Path, image: str, mask: str) -> None:
    save(root / image)
    save(root / mask, np.ones((2, 2)))


def test_ids_are_numbered_in_the_order_of_the_classes(
    make_folder: Make, settings: Callable[..., DataSettings]
) -> None:
    dataset = Folder(make_folder(), "train").checked()
    assert dataset.class_names == ("road", "car", "sky")
    assert dataset.ids == ["0", "1", "2"]
    for index in range(3):
        values, labels = (
            np.asarray(Image.open(dataset.paths(index)[1])),
            dataset.read(index)[1].numpy(),
        )
        for value, label in {7: 0, 0: 1, 255: 2, 3: 255}.items():
            np.testing.assert_array_equal(values == value, labels == label)
    summary = quick_check(settings(dataset.root, "folder"))
    assert (summary.num_train, summary.num_val, summary.class_names) == (
        3,
        2,
        ("road", "car", "sky"),
    )


def test_255_is_ignored_by_default(make_folder: Make) -> None:
    root = make_folder(ROAD_CAR)
    save(root / "masks/train/0.png", np.array([[0, 1, 255]]))
    save(root / "images/train/0.jpg", np.zeros((1, 3, 3)))
    assert Folder(root, "train").read(0)[1].tolist() == [[0, 1, 255]]
    (root / "classes.yaml").write_text(ROAD_CAR + "ignore: [9]\n")
    assert message(lambda: Folder(root, "train").read(0)) == (
        f"{root}/masks/train/0.png: mask values 255 are no class; needed are 0, 1, 9: add them to "
        "classes or ignore in classes.yaml"
    )


def test_masks_may_hold_colours(make_folder: Make) -> None:
    root = make_folder(COLOURED)
    save(root / "masks/train/0.png", np.array([[(0, 0, 0), (9, 8, 7), (255, 255, 255)]]))
    save(root / "images/train/0.jpg", np.zeros((1, 3, 3)))
    dataset = Folder(root, "train")
    assert dataset.palette == ((9, 8, 7), (0, 0, 0))
    assert dataset.read(0)[1].tolist() == [[1, 0, 255]]
    save(root / "masks/train/0.png", np.array([[(0, 0, 0), (7, 8, 9), (255, 255, 255)]]))
    assert message(lambda: dataset.read(0)) == (
        f"{root}/masks/train/0.png: mask colours (7, 8, 9) are no class; needed are the 3 of the "
        "dataset: add them to classes or ignore in classes.yaml"
    )


def test_classes_without_a_colour_get_one_that_no_other_has(make_folder: Make) -> None:
    text = (
        "classes: [{name: a, id: 0}, {name: b, id: 1, color: [128, 0, 0]}, {name: c, id: 2}, "
        "{name: d, id: 3}]\n"
    )
    colours = voc_colormap()
    assert Folder(make_folder(text), "train").palette == colours[:4]
    assert colours[1] == (128, 0, 0)


def test_names_pair_images_and_masks_whatever_their_extensions(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(ROAD_CAR)
    pairs = {
        "a.JPG": "a.png",
        "b.jpeg": "b.bmp",
        "c.png": "c.tif",
        "d.bmp": "d.PNG",
        "e.tif": "e.png",
        "f.g.webp": "f.g.png",
    }
    for image, mask in pairs.items():
        save_pair(tmp_path, f"images/train/{image}", f"masks/train/{mask}")
    for aside in ("images/train/notes.txt", "masks/train/Thumbs.db", "images/train/._a.jpg"):
        (tmp_path / aside).write_text("no image")
    dataset = Folder(tmp_path, "train").checked()
    assert dataset.ids == ["a", "b", "c", "d", "e", "f.g"]
    assert [(Path(s.image).name, Path(s.label).name) for s in dataset.samples] == list(
        pairs.items()
    )
    for index in range(len(pairs)):
        assert bool((dataset.read(index)[1] == 1).all())


@pytest.mark.parametrize(
    "where", ["images: '{split}'\nmasks: '{split}'\n", "images: '{split}/x'\nmasks: all\n"]
)
def test_masks_may_have_a_suffix_and_then_lie_beside_the_images(tmp_path: Path, where: str) -> None:
    (tmp_path / "classes.yaml").write_text(f"{ROAD_CAR}{where}suffix: _mask\n")
    images = "val" if "all" not in where else "val/x"
    masks = "val" if "all" not in where else "all"
    save_pair(tmp_path, f"{images}/a.jpg", f"{masks}/a_mask.png")
    save_pair(tmp_path, f"{images}/b.png", f"{masks}/b_mask.png")
    dataset = Folder(tmp_path, "val").checked()
    assert [sample[:] for sample in dataset.samples] == [
        ("a", f"{images}/a.jpg", f"{masks}/a_mask.png"),
        ("b", f"{images}/b.png", f"{masks}/b_mask.png"),
    ]


def test_without_a_directory_for_each_split_there_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(f"{ROAD_CAR}images: photos\nmasks: .\n")
    for name in ("a", "b", "c.1", "d"):
        save_pair(tmp_path, f"photos/{name}.jpg", f"{name}.png")
    (tmp_path / "small.txt").write_text("c.1\n\nb.jpg\nsomewhere/a.jpg\n")
    dataset = Folder(tmp_path, "small").checked()
    assert dataset.ids == ["c.1", "b", "a"]
    assert dataset.samples[0] == ("c.1", "photos/c.1.jpg", "c.1.png")
    assert message(lambda: Folder(tmp_path, "val")) == (
        f"{tmp_path}: there is no list val.txt; there is: small; set data.train_split and "
        "data.val_split"
    )


def test_listed_files_that_are_missing_are_reported(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(f"{ROAD_CAR}images: photos\nmasks: ids\n")
    save_pair(tmp_path, "photos/a.jpg", "ids/a.png")
    save(tmp_path / "photos/b.jpg")
    (tmp_path / "train.txt").write_text("a\nb\nc.jpg\n../a\n../d\n")
    lacking = "3 of the 6 files of split 'train' are missing: ids/b.png, photos/c.jpg, ids/c.png"
    assert Folder(tmp_path, "train").problems() == [
        (
            f"{tmp_path}: split 'train' lists files outside the dataset: d; needed are names "
            "inside data.root"
        ),
        f"{tmp_path}: split 'train' lists 1 ids more than once: a; list each id once",
        f"{tmp_path}: {lacking}; add them or take them off the list",
    ]


def test_a_dot_in_a_listed_name_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(f"{ROAD_CAR}images: photos\nmasks: ids\n")
    for name in ("a", "a.b", "a.b.c"):
        save_pair(tmp_path, f"photos/{name}.jpg", f"ids/{name}.png")
    (tmp_path / "train.txt").write_text("a.b\nelsewhere/a.b.c\na.jpg\n")
    assert [sample[:] for sample in Folder(tmp_path, "train").checked().samples] == [
        (name, f"photos/{name}.jpg", f"ids/{name}.png") for name in ("a.b", "a.b.c", "a")
    ]
    (tmp_path / "train.txt").write_text("a.b\na.x\n")  # not the image a
    for path in ("photos/a.b.jpg", "ids/a.b.png"):
        (tmp_path / path).unlink()
    (problem,) = Folder(tmp_path, "train").problems()
    assert problem == (
        f"{tmp_path}: 4 of the 4 files of split 'train' are missing: photos/a.b, ids/a.b.png, "
        "photos/a.x, ids/a.x.png; add them or take them off the list"
    )


NOT_READ = (
    "masks have no image of their name (.jpg, .jpeg, .webp, .png, .bmp, .tif, .tiff), so they are "
    "not read"
)
WAY_OUT = "rename the images that are meant, or remove the masks"


def test_masks_without_an_image_are_a_warning(
    make_folder: Make, settings: Callable[..., DataSettings]
) -> None:
    root = make_folder()
    assert check_data(settings(root, "folder")).warnings == ()
    (root / "images/train/1.jpg").rename(root / "images/train/1.gif")
    save(root / "masks/train/9.tif", np.zeros((2, 2)))
    report = check_data(settings(root, "folder"))
    assert report.errors == ()
    assert report.warnings == (
        f"{root}: 2 {NOT_READ}: masks/train/1.png, masks/train/9.tif; {WAY_OUT}",
    )


def test_a_mask_may_have_its_image_outside_the_list_or_in_another_split(
    tmp_path: Path, settings: Callable[..., DataSettings]
) -> None:
    for name, split in (("a", "train"), ("b", "val"), ("c", "spare")):
        save(tmp_path / f"photos[1]/{split}/{name}.jpg", np.full((2, 2, 3), ord(name)))
        save(tmp_path / f"photos/{name}.jpg", np.full((2, 2, 3), ord(name)))
        save(tmp_path / f"ids/{name}_id.png", np.ones((2, 2)))
        (tmp_path / f"{split}.txt").write_text(f"{name}\n")
    save(tmp_path / "ids/overview.png", np.ones((2, 2)))  # without the suffix it is not a mask
    for images in ("photos", "photos[1]/{split}"):
        (tmp_path / "classes.yaml").write_text(
            f"{ROAD_CAR}images: '{images}'\nmasks: ids\nsuffix: _id\n"
        )
        report = check_data(settings(tmp_path, "folder"))
        assert (report.errors, report.warnings) == ((), ())
        save(tmp_path / "ids/d_id.png", np.ones((2, 2)))
        (warning,) = check_data(settings(tmp_path, "folder")).warnings  # one line for both splits
        assert warning == f"{tmp_path}: 1 {NOT_READ}: ids/d_id.png; {WAY_OUT}"
        (tmp_path / "ids/d_id.png").unlink()


def test_two_files_of_one_name_are_refused(make_folder: Make) -> None:
    root = make_folder()
    save(root / "images/train/1.png")
    assert message(lambda: Folder(root, "train")) == (
        f"{root}: images/train/1.jpg and images/train/1.png differ only in their extensions, and "
        "images and masks are paired by the rest of the name; needed is one of them: remove or "
        "rename the other"
    )


def test_a_directory_that_is_not_there_is_refused(make_folder: Make) -> None:
    root = make_folder()
    assert message(lambda: Folder(root, "test")) == (
        f"{root}: there is no directory images/test; needed is what classes.yaml says: set "
        "data.train_split and data.val_split, or images and masks in classes.yaml"
    )


def test_the_fingerprint_changes_with_the_classes(make_folder: Make) -> None:
    root = make_folder()
    before = Folder(root, "train").fingerprint()
    text = (root / "classes.yaml").read_text()
    (root / "classes.yaml").write_text(f"# the same\n{text}")
    assert Folder(root, "train").fingerprint() == before
    (root / "classes.yaml").write_text(
        text.replace("id: 7", "id: 3").replace("ignore: [3]", "ignore: [7]")
    )
    assert Folder(root, "train").fingerprint() != before


def test_without_classes_yaml_the_error_shows_what_to_write(tmp_path: Path) -> None:
    example = "classes: [{name: road, id: 0}, {name: car, id: 1}]"
    assert message(lambda: Folder(tmp_path, "train")) == (
        f"{tmp_path}: there is no classes.yaml; needed is one that says what masks hold, such as "
        f"{example}"
    )
    path = tmp_path / "classes.yaml"
    path.touch()
    assert (
        message(lambda: Folder(tmp_path, "train"))
        == f"{path}:1: needs the classes, such as {example}, and has none"
    )


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        # keys
        (ROAD_CAR + "mask: a\n", 2, "mask: unknown key 'mask'; did you mean 'masks'?"),
        (ROAD_CAR + "zzz: a\n", 2, f"zzz: unknown key 'zzz'; there is: {KEYS}"),
        (
            "classes:\n- {name: a, id: 0, colour: 1}",
            2,
            "classes[0].colour: unknown key 'colour'; did you mean 'color'?",
        ),
        (ROAD_CAR + "masks: a\nmasks: b\n", 3, "masks: is given twice; keep one"),
        ("images: a\n", 1, "classes: is missing"),
        ("classes: []\n", 1, "classes: needs at least 1 value, got []"),
        ("classes: [road]\n", 1, 'classes[0]: needs a section of settings, got "road"'),
        # classes
        ("classes:\n- {name: a, id: 0}\n- {id: 1}\n", 3, "classes[1].name: is missing"),
        (
            "classes:\n- {name: 5, id: 0}\n",
            2,
            "classes[0].name: needs text, got 5; put it in quotes",
        ),
        ("classes:\n- {name: a, id: 256}\n", 2, "classes[0].id: needs at most 255, got 256"),
        ("classes:\n- {name: a, id: -1}\n", 2, "classes[0].id: needs at least 0, got -1"),
        ("classes:\n- {name: a, id: true}\n", 2, "classes[0].id: needs a whole number, got true"),
        ("classes:\n- {name: a}\n", 2, "classes[0].id: is missing; needed where masks_hold is ids"),
        (
            "classes:\n- {name: a, id: 3}\n- {name: b, id: 3}\n",
            3,
            "classes[1].id: is that of classes[0] too, got 3; needs another",
        ),
        (
            "classes:\n- {name: a, id: 3}\n- {name: a, id: 4}\n",
            3,
            'classes[1].name: is that of classes[0] too, got "a"; needs another',
        ),
        (
            "classes:\n- {name: a, id: 0, color: red}\n",
            2,
            'classes[0].color: needs a list, as in [1, 2], got "red"',
        ),
        ("classes:\n- {name: a, id: 0, color: [0, 0]}\n", 2, "classes[0].color[2]: is missing"),
        (
            "classes:\n- {name: a, id: 0, color: [0, 0, 256]}\n",
            2,
            "classes[0].color[2]: needs at most 255, got 256",
        ),
        # colours
        (
            COLOURED + "masks_hold: ids\n",
            4,
            "masks_hold: is given twice; keep one",
        ),
        (
            "masks_hold: colors\nclasses:\n- {name: a, color: [1, 2, 3]}\n- {name: b}\n",
            4,
            "classes[1].color: is missing; needed where masks_hold is colors",
        ),
        (
            (
                "masks_hold: colors\nclasses:\n- {name: a, color: [1, 2, 3]}\n"
                "- {name: b, color: [1, 2, 3]}\n"
            ),
            4,
            "classes[1].color: is that of classes[0] too, got [1, 2, 3]; needs another",
        ),
        (
            "masks_hold: colors\nclasses:\n- {name: a, color: [1, 2, 3], id: 0}\n",
            3,
            "classes[0].id: means nothing where masks_hold is colors; leave it out",
        ),
        (ROAD_CAR + "masks_hold: names\n", 2, "masks_hold: needs 'ids' or 'colors', got \"names\""),
        # ignored
        (
            ROAD_CAR + "ignore: [1]\n",
            2,
            "ignore[0]: 1 is the id of class 'car'; take one of them out",
        ),
        (ROAD_CAR + "ignore: 255\n", 2, "ignore: needs a list, as in [1, 2], got 255"),
        (
            ROAD_CAR + "ignore: [300]\n",
            2,
            "ignore[0]: needs an id 0..255, or a color as in [0, 0, 142], got 300",
        ),
        (
            ROAD_CAR + "ignore: [[1, 2]]\n",
            2,
            "ignore[0]: needs an id 0..255, or a color as in [0, 0, 142], got [1, 2]",
        ),
        (
            ROAD_CAR + "ignore: [[1, 2, 3]]\n",
            2,
            "ignore[0]: needs an id where masks_hold is ids, got [1, 2, 3]",
        ),
        (
            COLOURED.replace("[[255, 255, 255]]", "[255]"),
            3,
            "ignore[0]: needs a color where masks_hold is colors, got 255",
        ),
        (
            COLOURED.replace("255, 255, 255", "9, 8, 7"),
            3,
            "ignore[0]: [9, 8, 7] is the color of class 'road'; take one of them out",
        ),
        # paths
        (
            ROAD_CAR + "images: ../x\n",
            2,
            'images: needs a directory inside the dataset, got "../x"',
        ),
        (ROAD_CAR + "masks: /etc\n", 2, 'masks: needs a directory inside the dataset, got "/etc"'),
        (ROAD_CAR + 'masks: ""\n', 2, 'masks: needs a directory inside the dataset, got ""'),
        (
            ROAD_CAR + "suffix: /../x\n",
            2,
            'suffix: needs the end of a file\'s name, without its extension, got "/../x"',
        ),
        # YAML
        (
            ROAD_CAR + "images: !!python/name:os.system\n",
            2,
            'images: "" cannot be read as os.system',
        ),
        (ROAD_CAR + "images: ${HOME}\n", 2, "images: the variable HOME is not set"),
        ("classes: [\n", 2, "not YAML"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(
    tmp_path: Path, text: str, line: int, problem: str
) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    assert message(lambda: Folder(tmp_path, "train")).startswith(f"{path}:{line}: {problem}")


def test_all_mistakes_are_reported_at_once_from_top_to_bottom(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(
        "suffix: [a]\nclasses:\n- {id: 1}\n- {name: a, id: x}\nimages: ..\n"
    )
    with pytest.raises(DataError) as caught:
        Folder(tmp_path, "train")
    path = tmp_path / "classes.yaml"
    assert caught.value.problems == [
        f'{path}:1: suffix: needs text, got ["a"]',
        f"{path}:3: classes[0].name: is missing",
        f'{path}:4: classes[1].id: needs a whole number, got "x"',
        f'{path}:5: images: needs a directory inside the dataset, got ".."',
    ]


def test_images_of_both_splits_may_have_the_same_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder, shape in (("images", (8, 8, 3)), ("masks", (8, 8))):
            (tmp_path / folder / split).mkdir(parents=True)
            Image.fromarray(rng.integers(0, 2, shape, np.uint8)).save(
                tmp_path / folder / split / "0000.png"
            )
    (tmp_path / "classes.yaml").write_text("classes: [{name: road, id: 0}, {name: car, id: 1}]\n")
    data = DataSettings(name="folder", root=str(tmp_path), crop=(8, 8))
    assert check_data(data, full=True).errors == ()

    twin = tmp_path / "images/train/0000.png"
    (tmp_path / "images/val/0000.png").write_bytes(twin.read_bytes())
    (error,) = check_data(data, full=True).errors
    assert f"the same image as {twin} of train split 'train'" in error
