"""The original CamVid: its colours become the 11 classes, and its splits are the user's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnfd_ray.data.datasets.camvid import CamVid
from attnfd_ray.errors import DataError

Make = Callable[..., Path]

# the 32 published classes and their colours
LABEL_COLOURS = """
Sky 128 128 128, Building 128 0 0, Archway 192 0 128, Bridge 0 128 64, Tunnel 64 0 64, Wall 64 192 0
Column_Pole 192 192 128, TrafficCone 0 0 64, Road 128 64 128, LaneMkgsDriv 128 0 192
LaneMkgsNonDriv 192 0 64, Sidewalk 0 0 192, ParkingBlock 64 192 128, RoadShoulder 128 128 192
Tree 128 128 0, VegetationMisc 192 192 0, SignSymbol 192 128 128, Misc_Text 128 128 64
TrafficLight 0 64 64, Fence 64 64 128, Car 64 0 128, SUVPickupTruck 64 128 192
Truck_Bus 192 128 192, Train 192 64 128, OtherMoving 128 64 64, Pedestrian 64 64 0
Child 192 128 64, CartLuggagePram 64 0 192, Animal 64 128 64, Bicyclist 0 128 192
MotorcycleScooter 192 0 192, Void 0 0 0
"""
COLOURS = {
    name: tuple(map(int, colour))
    for name, *colour in (
        entry.split() for entry in LABEL_COLOURS.replace("\n", ", ").strip(", ").split(", ")
    )
}
CLASSES = {
    "Sky": "Sky",
    "Building": "Building Archway Bridge Tunnel Wall",
    "Pole": "Column_Pole TrafficCone",
    "Road": "Road LaneMkgsDriv LaneMkgsNonDriv",
    "Pavement": "Sidewalk ParkingBlock RoadShoulder",
    "Tree": "Tree VegetationMisc",
    "SignSymbol": "SignSymbol Misc_Text TrafficLight",
    "Fence": "Fence",
    "Car": "Car SUVPickupTruck Truck_Bus Train OtherMoving",
    "Pedestrian": "Pedestrian Child CartLuggagePram Animal",
    "Bicyclist": "Bicyclist MotorcycleScooter",
}


def message(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_all_32_colours_become_the_11_classes_and_void(make_camvid_original: Make) -> None:
    dataset = CamVid(make_camvid_original(), "train")
    assert len(COLOURS) == len(set(COLOURS.values())) == 32
    for path, pixels in zip(
        dataset.paths(0), (np.zeros((1, 32, 3)), [list(COLOURS.values())]), strict=True
    ):
        Image.fromarray(np.array(pixels, np.uint8)).save(path)
    labels = dict(zip(COLOURS, dataset.read(0)[1][0].tolist(), strict=True))
    of = {
        name: dataset.class_names.index(label)
        for label, names in CLASSES.items()
        for name in names.split()
    }
    assert labels == {**of, "Void": 255}


def test_it_has_the_same_classes_as_the_tutorials(
    make_camvid_original: Make, make_camvid: Make
) -> None:
    original, tutorial = (
        CamVid(make_camvid_original(), "train").checked(),
        CamVid(make_camvid(), "train"),
    )
    assert (original.class_names, original.palette) == (tutorial.class_names, tutorial.palette)
    assert original.recording(0) == "0006R0"
    assert original.ids == ["0006R0_00000", "0006R0_00001", "0006R0_00002"]
    assert original.samples[0][1:] == (
        "701_StillsRaw_full/0006R0_00000.png",
        "LabeledApproved_full/0006R0_00000_L.png",
    )


def test_a_list_may_name_ids_files_or_the_pairs_of_the_tutorial(make_camvid_original: Make) -> None:
    root = make_camvid_original()
    (root / "mine.txt").write_text(
        "0006R0_00002\n\n0006R0_00000.png\n/SegNet/CamVid/train/0016E5_00004.png "
        "/SegNet/CamVid/trainannot/x.png\n"
    )
    dataset = CamVid(root, "mine").checked()
    assert dataset.ids == ["0006R0_00002", "0006R0_00000", "0016E5_00004"]


def test_without_a_list_the_error_explains_how_to_write_one(make_camvid_original: Make) -> None:
    root = make_camvid_original()
    assert message(lambda: CamVid(root, "test")) == (
        f"{root}: there is no test.txt; needed is a list, because this CamVid has no splits of its "
        "own: write one id (such as 0001TP_006690) a line, or take the list of the SegNet tutorial"
    )


def test_an_id_without_files_is_missing(make_camvid_original: Make) -> None:
    root = make_camvid_original()
    (root / "train.txt").write_text("0006R0_00002\n0001TP_1\n")
    assert message(lambda: CamVid(root, "train").checked()) == (
        f"{root}: 2 of the 4 files of split 'train' are missing: 701_StillsRaw_full/0001TP_1.png, "
        "LabeledApproved_full/0001TP_1_L.png; add them or take them off the list"
    )


def test_unknown_colours_are_named(make_camvid_original: Make) -> None:
    dataset = CamVid(make_camvid_original(), "train")
    path = dataset.paths(1)[1]
    colours_HWC = np.asarray(Image.open(path)).copy()
    colours_HWC[2, :3] = (255, 255, 255), (1, 2, 3), (0, 0, 1)
    Image.fromarray(colours_HWC).save(path)
    assert message(lambda: dataset.read(1)) == (
        f"{path}: mask colours (0, 0, 1), (1, 2, 3), (255, 255, 255) are no class; needed are the "
        "32 of the dataset: check that data.name is what data.root holds"
    )


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_colours_count_however_they_are_stored(make_camvid_original: Make, mode: str) -> None:
    dataset = CamVid(make_camvid_original(), "train")
    before, path = dataset.read(1)[1], dataset.paths(1)[1]
    with Image.open(path) as mask:
        mask.convert(mode, palette=Image.Palette.ADAPTIVE).save(path)
    assert bool((dataset.read(1)[1] == before).all())


def test_a_grey_mask_or_no_image_is_refused(make_camvid_original: Make) -> None:
    dataset = CamVid(make_camvid_original(), "train")
    path = dataset.paths(1)[1]
    Image.new("L", (24, 18)).save(path)
    assert message(lambda: dataset.read(1)) == (
        f"{path}: the mask has mode L; needed is one colour a pixel, an RGB PNG: convert it first"
    )
    path.write_bytes(b"no image")
    assert message(lambda: dataset.read(1)) == (
        f"{path}: cannot be read (cannot identify image file); needed is a whole image file: copy "
        "it again"
    )
