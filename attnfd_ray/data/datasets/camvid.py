"""CamVid with 11 classes, in the layout of the SegNet tutorial or in its original one. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.datasets.base import Sample, SegmentationDataset
from attnfd_ray.data.files import Bytes, read_colours, read_list
from attnfd_ray.data.palette import Colour
from attnfd_ray.errors import DataError

_STILLS = "701_StillsRaw_full"
_MASKS = "LabeledApproved_full"
_CLASSES: Mapping[str, Colour] = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}
"""The 11 classes in order, and the colours they are drawn in."""
_ORIGINAL_CLASSES: Mapping[Colour, str] = {
    (128, 128, 128): "Sky",
    (128, 0, 0): "Building",
    (192, 0, 128): "Building",  # archway
    (0, 128, 64): "Building",  # bridge
    (64, 0, 64): "Building",  # tunnel
    (64, 192, 0): "Building",  # wall
    (192, 192, 128): "Pole",
    (0, 0, 64): "Pole",  # traffic cone
    (128, 64, 128): "Road",
    (128, 0, 192): "Road",  # driving lane markings
    (192, 0, 64): "Road",  # other lane markings
    (0, 0, 192): "Pavement",  # sidewalk
    (64, 192, 128): "Pavement",  # parking block
    (128, 128, 192): "Pavement",  # road shoulder
    (128, 128, 0): "Tree",
    (192, 192, 0): "Tree",  # other vegetation
    (192, 128, 128): "SignSymbol",
    (128, 128, 64): "SignSymbol",  # other text
    (0, 64, 64): "SignSymbol",  # traffic light
    (64, 64, 128): "Fence",
    (64, 0, 128): "Car",
    (64, 128, 192): "Car",  # pickup
    (192, 128, 192): "Car",  # truck or bus
    (192, 64, 128): "Car",  # train
    (128, 64, 64): "Car",  # other moving vehicles
    (64, 64, 0): "Pedestrian",
    (192, 128, 64): "Pedestrian",  # child
    (64, 0, 192): "Pedestrian",  # luggage or pram
    (64, 128, 64): "Pedestrian",  # animal
    (0, 128, 192): "Bicyclist",
    (192, 0, 192): "Bicyclist",  # motorcycle or scooter
}
"""The colours of the original masks. Black, which is not among them, is void."""
_LABELS = {name: label for label, name in enumerate(_CLASSES)}
_ORIGINAL_LABELS: Mapping[Colour, int] = {
    (0, 0, 0): IGNORED,
    **{colour: _LABELS[name] for colour, name in _ORIGINAL_CLASSES.items()},
}


class CamVid(SegmentationDataset):
    """CamVid: `{split}/*.png` and `{split}annot/*.png`, listed in `{split}.txt` if there is one.

    The published lists hold absolute paths of their author's machine, so only the last two parts of
    a path count.

    The original CamVid (960x720) works too: `701_StillsRaw_full/ID.png` and
    `LabeledApproved_full/ID_L.png`, whose 32 colours are mapped to the same 11 classes. It has no
    splits of its own: `{split}.txt` lists ids or files, one a line.
    """

    class_names: tuple[str, ...] = tuple(_CLASSES)
    palette: tuple[Colour, ...] = tuple(_CLASSES.values())
    label_map: Mapping[int, int] | None = {
        **{label: label for label in range(len(_CLASSES))},
        len(_CLASSES): IGNORED,
    }
    published: Mapping[str, int] = {"train": 367, "val": 101, "test": 233}

    def list_samples(self) -> Sequence[Sample]:
        """Return the pairs of `{split}.txt`, else the images in the directory `{split}`.

        DataError if there is neither.
        """
        list_path = self.root / f"{self.split}.txt"
        self._is_original = (self.root / _STILLS).is_dir()
        if self._is_original:
            return self._list_original(list_path)
        if list_path.is_file():
            return [_pair(list_path, line) for line in read_list(list_path, root=self.root)]
        if not (self.root / self.split).is_dir():
            raise DataError(
                f"{self.root}: there is neither {self.split}.txt nor a directory {self.split}; "
                "needed is CamVid as in the SegNet tutorial: set data.root, data.train_split and "
                "data.val_split"
            )
        names = sorted(path.name for path in (self.root / self.split).glob("*.png"))
        return [
            Sample(Path(name).stem, f"{self.split}/{name}", f"{self.split}annot/{name}")
            for name in names
        ]

    def read_values(self, sample: Sample) -> Bytes:
        """Return values_HW of a sample's mask; the colours of an original mask become class ids."""
        if self._is_original:
            return read_colours(self.root / sample.label, _ORIGINAL_LABELS, remedy=self.remedy)
        return super().read_values(sample)

    def recording(self, index: int) -> str | None:
        """Return the film's name, the first part of a frame's id: 0016E5 of 0016E5_07959."""
        film, _, frame = self.samples[index].id.partition("_")
        if not frame:
            return None
        return film

    def _list_original(self, list_path: Path) -> Sequence[Sample]:
        if not list_path.is_file():
            raise DataError(
                f"{self.root}: there is no {list_path.name}; needed is a list, because this CamVid "
                "has no splits of its own: write one id (such as 0001TP_006690) a line, or take "
                "the list of the SegNet tutorial"
            )
        self.label_map = None
        lines = read_list(list_path, root=self.root)
        ids = [PurePosixPath(line.split()[0]).stem for line in lines]
        return [
            Sample(sample_id, f"{_STILLS}/{sample_id}.png", f"{_MASKS}/{sample_id}_L.png")
            for sample_id in ids
        ]


def _pair(list_path: Path, line: str) -> Sample:
    paths = line.split()
    if len(paths) != 2:
        raise DataError(
            f"{list_path}: '{line}' is not a pair; needed is an image and its mask on each line"
        )
    image, label = map(_last_two_parts, paths)
    return Sample(PurePosixPath(image).stem, image, label)


def _last_two_parts(path: str) -> str:
    parts = PurePosixPath(path).parts
    return "/".join(parts[-2:])
