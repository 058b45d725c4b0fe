"""CamVid with 11 classes, laid out as in the SegNet tutorial or as first published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.datasets.base import Sample, SegmentationDataset
from attnfd_ray.data.files import Bytes, read_colours, read_list
from attnfd_ray.data.palette import Colour
from attnfd_ray.errors import DataError

_STILLS, _MASKS = "701_StillsRaw_full", "LabeledApproved_full"
_COLOURS: Sequence[Sequence[Colour]] = (
    [(128, 128, 128)],
    [
        (128, 0, 0),
        (192, 0, 128),
        (0, 128, 64),
        (64, 0, 64),
        (64, 192, 0),
    ],  # building, archway, bridge, tunnel, wall
    [(192, 192, 128), (0, 0, 64)],  # pole, traffic cone
    [(128, 64, 128), (128, 0, 192), (192, 0, 64)],  # road, lane markings for driving and others
    [(0, 0, 192), (64, 192, 128), (128, 128, 192)],  # sidewalk, parking block, road shoulder
    [(128, 128, 0), (192, 192, 0)],  # tree, other vegetation
    [(192, 128, 128), (128, 128, 64), (0, 64, 64)],  # sign or symbol, other text, traffic light
    [(64, 64, 128)],
    [
        (64, 0, 128),
        (64, 128, 192),
        (192, 128, 192),
        (192, 64, 128),
        (128, 64, 64),
    ],  # car, pickup, truck, train, other
    [
        (64, 64, 0),
        (192, 128, 64),
        (64, 0, 192),
        (64, 128, 64),
    ],  # pedestrian, child, luggage or pram, animal
    [(0, 128, 192), (192, 0, 192)],  # bicyclist, motorcycle or scooter
)
"""For each class in order, its colours in the original's masks; black is void."""
_MEANINGS = {
    (0, 0, 0): IGNORED,
    **{colour: label for label, colours in enumerate(_COLOURS) for colour in colours},
}


class CamVid(SegmentationDataset):
    """CamVid: `{split}/*.png` and `{split}annot/*.png`, listed in `{split}.txt` if there is one.

    The published lists carry the absolute paths of their author's machine, so only the last two
    parts of a path count.

    Or CamVid as first published, 960x720: `701_StillsRaw_full/ID.png` and
    `LabeledApproved_full/ID_L.png`, whose 32 colours become the same 11 classes. It has no splits
    of its own: `{split}.txt` lists ids or files, one a line.
    """

    class_names: tuple[str, ...] = (
        *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
        *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
    )
    palette: tuple[Colour, ...] = (
        *(
            (128, 128, 128),
            (128, 0, 0),
            (192, 192, 128),
            (128, 64, 128),
            (60, 40, 222),
            (128, 128, 0),
        ),
        *((192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    )
    label_map: Mapping[int, int] | None = {**{label: label for label in range(11)}, 11: IGNORED}
    published: Mapping[str, int] = {"train": 367, "val": 101, "test": 233}

    def list_samples(self) -> Sequence[Sample]:
        """Return the pairs of `{split}.txt`, else the images of the directory `{split}`; DataError
        without either.
        """
        listed = self.root / f"{self.split}.txt"
        self._is_original = (self.root / _STILLS).is_dir()
        if self._is_original:
            return self._list_original(listed)
        if listed.is_file():
            return [_pair(listed, line) for line in read_list(listed, root=self.root)]
        if not (self.root / self.split).is_dir():
            raise DataError(
                f"{self.root}: there is neither {self.split}.txt nor a directory {self.split}; "
                "needed is CamVid as in "
                "the SegNet tutorial: set data.root, data.train_split and data.val_split"
            )
        names = sorted(path.name for path in (self.root / self.split).glob("*.png"))
        return [Sample(Path(n).stem, f"{self.split}/{n}", f"{self.split}annot/{n}") for n in names]

    def read_values(self, sample: Sample) -> Bytes:
        """Return values_HW of a sample's mask; of an original one, what its colours mean."""
        if self._is_original:
            return read_colours(self.root / sample.label, _MEANINGS, remedy=self.remedy)
        return super().read_values(sample)

    def recording(self, index: int) -> str | None:
        """Return the film's name, which is the first part of a frame's: 0016E5 of 0016E5_07959."""
        film, _, frame = self.samples[index].id.partition("_")
        return film if frame else None

    def _list_original(self, listed: Path) -> Sequence[Sample]:
        if not listed.is_file():
            raise DataError(
                f"{self.root}: there is no {listed.name}; needed is a list, for this CamVid has "
                "no splits of its own: "
                "write one id (such as 0001TP_006690) a line, or take the list of the SegNet "
                "tutorial"
            )
        self.label_map = None
        ids = [PurePosixPath(line.split()[0]).stem for line in read_list(listed, root=self.root)]
        return [Sample(i, f"{_STILLS}/{i}.png", f"{_MASKS}/{i}_L.png") for i in ids]


def _pair(listed: Path, line: str) -> Sample:
    parts = line.split()
    if len(parts) != 2:
        raise DataError(
            f"{listed}: '{line}' is not a pair; needed is an image and its mask on each line"
        )
    image, label = ("/".join(PurePosixPath(part).parts[-2:]) for part in parts)
    return Sample(PurePosixPath(image).stem, image, label)
