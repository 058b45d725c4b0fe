"""Cityscapes: its layouts, its two kinds of ids, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Cityscapes as TorchvisionCityscapes

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.checker.check import quick_check
from attnfd_ray.data.datasets.cityscapes import Cityscapes
from attnfd_ray.errors import DataError

Make = Callable[..., Path]
SPLITS = "train, val, train_coarse, val_coarse, train_extra"
EXTRA = " or ".join(
    f"{folder}/train_extra"
    for folder in ("leftImg8bit", "images", "cityscapes/leftImg8bit", "cityscapes/images")
)
IDS = ["aachen_000000_000019", "aachen_000002_000019", "zurich_000001_000019"]


def message(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert len(caught.value.problems) == 1
    return str(caught.value)


def save(root: Path, split: str, kind: str, label_HW: np.ndarray) -> None:
    """Write one image of a city and its mask."""
    annotation = "gtCoarse" if "Coarse" in kind else "gtFine"
    name = "bochum/bochum_000000_000000"
    for path, values in (
        (
            root / f"leftImg8bit/{split}/{name}_leftImg8bit.png",
            np.zeros((*label_HW.shape, 3), np.uint8),
        ),
        (root / f"{annotation}/{split}/{name}_{kind}.png", label_HW),
    ):
        path.parent.mkdir(parents=True)
        Image.fromarray(values).save(path)


@pytest.mark.parametrize("images", ["leftImg8bit", "images"])
@pytest.mark.parametrize("home", ["", "cityscapes"])
def test_it_is_found_in_each_shape_and_sorted_by_name(
    make_cityscapes: Make, home: str, images: str
) -> None:
    dataset = Cityscapes(make_cityscapes(home, images=images), "train").checked()
    assert dataset.ids == IDS
    assert dataset.read(2)[0].shape == (3, 16, 32)
    assert Cityscapes(dataset.root / home, "train").fingerprint() == dataset.fingerprint()


def test_every_label_id_has_its_train_id(tmp_path: Path) -> None:
    negative = np.array([-1], np.int8).astype(np.uint8)  # the id of a licence plate, as a byte
    save(
        tmp_path,
        "val",
        "gtFine_labelIds",
        np.concatenate([np.arange(34, dtype=np.uint8), negative])[None],
    )
    labels = Cityscapes(tmp_path, "val").read(0)[1][0].tolist()
    ignored = [255] * 7
    assert labels == [
        *(*ignored, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255),
        *(6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255, 255, 16, 17, 18, 255),
    ]


def test_ids_names_and_colours_are_those_torchvision_knows() -> None:
    known = {
        entry.train_id: entry for entry in TorchvisionCityscapes.classes if 0 <= entry.train_id < 19
    }
    assert list(Cityscapes.class_names) == [known[label].name for label in range(19)]
    assert list(Cityscapes.palette) == [known[label].color for label in range(19)]
    train_ids = {entry.id & 255: entry.train_id & 255 for entry in TorchvisionCityscapes.classes}
    assert Cityscapes.label_map == train_ids


@pytest.mark.parametrize("split", ["train", "val", "train_coarse"])
def test_torchvision_reads_the_same(make_cityscapes: Make, split: str) -> None:
    part, coarse, _ = split.partition("_coarse")
    root = make_cityscapes(splits=("train", "val"), annotation="gtCoarse" if coarse else "gtFine")
    theirs = TorchvisionCityscapes(str(root), part, "coarse" if coarse else "fine", "semantic")
    by_id = {
        Path(path).name.removesuffix("_leftImg8bit.png"): number
        for number, path in enumerate(theirs.images)
    }
    table = np.full(256, 255, np.uint8)
    for entry in theirs.classes:
        table[entry.id] = entry.train_id & 255
    ours = Cityscapes(root, split)
    assert sorted(by_id) == ours.ids
    for index, name in enumerate(ours.ids):
        image, mask = theirs[by_id[name]]
        np.testing.assert_array_equal(
            np.asarray(image), ours.read(index)[0].permute(1, 2, 0).numpy()
        )
        np.testing.assert_array_equal(table[np.asarray(mask)], ours.read(index)[1].numpy())


def test_masks_of_train_ids_are_taken_as_they_are_where_there_are_any(tmp_path: Path) -> None:
    values = np.array([[*range(19), 255]], np.uint8)
    save(tmp_path, "train", "gtFine_labelTrainIds", values)
    dataset = Cityscapes(tmp_path, "train")
    np.testing.assert_array_equal(dataset.read(0)[1].numpy(), values)

    Image.fromarray(values + 7).save(
        dataset.paths(0)[1].with_name("bochum_000000_000000_gtFine_labelIds.png")
    )
    np.testing.assert_array_equal(Cityscapes(tmp_path, "train").read(0)[1].numpy(), values)


def test_a_label_id_in_a_mask_of_train_ids_is_named(tmp_path: Path) -> None:
    save(tmp_path, "train", "gtFine_labelTrainIds", np.array([[18, 19, 33]], np.uint8))
    dataset = Cityscapes(tmp_path, "train")
    assert message(lambda: dataset.read(0)) == (
        f"{dataset.paths(0)[1]}: mask values 19, 33 are no class; needed are 0..18 or 255: check "
        "that data.name is what data.root holds"
    )


def test_coarse_splits_read_coarse_masks(make_cityscapes: Make) -> None:
    root = make_cityscapes(splits=("train_extra",), annotation="gtCoarse")
    dataset = Cityscapes(root, "train_extra").checked()
    assert (
        dataset.samples[0].label
        == "gtCoarse/train_extra/aachen/aachen_000000_000019_gtCoarse_labelIds.png"
    )


def test_coarse_masks_among_the_fine_ones_are_not_read(make_cityscapes: Make) -> None:
    root = make_cityscapes(splits=("train",))
    frame = "gtFine/train/zurich/zurich_000001_000019_"
    for name in (
        "zurich_000001_000019",
        "zurich_000009_000019",
    ):  # the second belongs to no image
        coarse = root / f"gtFine/train/zurich/{name}_gtCoarse_labelIds.png"
        coarse.write_bytes((root / f"{frame}gtFine_labelIds.png").read_bytes())
    assert [
        sample.label.rpartition("_gt")[2] for sample in Cityscapes(root, "train").checked().samples
    ] == ["Fine_labelIds.png"] * 3
    (root / f"{frame}gtFine_labelIds.png").unlink()
    lacking = f"1 of the 6 files of split 'train' are missing: {frame}gtFine_labelIds.png"
    assert Cityscapes(root, "train").problems() == [
        f"{root}: {lacking}; add them or take them off the list"
    ]
    assert message(lambda: Cityscapes(root, "train_coarse")) == (
        f"{root}: split 'train_coarse' has no masks; needed is a directory gtCoarse/train: unpack "
        "gtCoarse beside the images"
    )


def test_some_train_ids_alone_are_refused(make_cityscapes: Make) -> None:
    root = make_cityscapes(kinds={"labelIds": 34, "labelTrainIds": 19})
    (root / "gtFine/train/zurich/zurich_000001_000019_gtFine_labelTrainIds.png").unlink()
    assert message(lambda: Cityscapes(root, "train")) == (
        f"{root}/gtFine/train: 2 images have a mask *_gtFine_labelTrainIds.png and 1 only "
        "*_gtFine_labelIds.png: zurich/zurich_000001_000019; needed is one kind for all: run "
        "cityscapesScripts' createTrainIdLabelImgs again, or remove the train ids"
    )


def test_an_image_without_a_mask_and_a_mask_without_an_image_are_reported(
    make_cityscapes: Make,
) -> None:
    root = make_cityscapes(kinds={"labelTrainIds": 19})
    mask = "gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png"
    (root / mask).unlink()
    assert Cityscapes(root, "train").problems() == [
        (
            f"{root}: 1 of the 6 files of split 'train' are missing: {mask}; add them or take them "
            "off the list"
        )
    ]
    (
        root
        / mask.replace("gtFine/", "leftImg8bit/").replace("gtFine_labelTrainIds", "leftImg8bit")
    ).unlink()
    assert Cityscapes(root, "train").problems() == []
    mask = "gtFine/train/zurich/zurich_000001_000019_gtFine_labelTrainIds.png"
    (root / "leftImg8bit/train/zurich/zurich_000001_000019_leftImg8bit.png").unlink()
    assert Cityscapes(root, "train").problems() == [
        f"{root}: 1 masks of split 'train' have no image: {mask}; add their images or remove them"
    ]


@pytest.mark.parametrize(
    ("split", "complaint"),
    [
        (
            "test",
            (f"has only dummy masks; there is: {SPLITS}; set data.train_split and data.val_split"),
        ),
        (
            "trainval",
            (
                f"is not a split of Cityscapes; there is: {SPLITS}; set data.train_split and "
                "data.val_split"
            ),
        ),
        (
            "train_extra",
            (
                f"has no images; needed is a directory {EXTRA}: set data.root to the directory "
                "that holds leftImg8bit"
            ),
        ),
        (
            "train_coarse",
            "has no masks; needed is a directory gtCoarse/train: unpack gtCoarse beside the images",
        ),
    ],
)
def test_a_split_that_is_not_there_is_refused(
    make_cityscapes: Make, split: str, complaint: str
) -> None:
    root = make_cityscapes()
    assert message(lambda: Cityscapes(root, split)) == f"{root}: split '{split}' {complaint}"


def test_a_run_can_train_on_coarse_masks_and_score_on_fine_ones(
    make_cityscapes: Make, settings: Callable[..., DataSettings]
) -> None:
    make_cityscapes(annotation="gtCoarse", splits=("train",))
    root = make_cityscapes(splits=("val",))
    summary = quick_check(settings(root, "cityscapes", train_split="train_coarse"))
    assert (summary.num_train, summary.num_val, summary.num_classes) == (3, 3, 19)
