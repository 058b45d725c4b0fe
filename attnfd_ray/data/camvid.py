"""CamVid with 11 classes, laid out as in the SegNet tutorial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from attnfd_ray.config.values import IGNORED
from attnfd_ray.data.dataset import Sample, SegmentationDataset
from attnfd_ray.data.files import read_list
from attnfd_ray.data.palette import Colour
from attnfd_ray.errors import DataError


class CamVid(SegmentationDataset):
    """CamVid: `{split}/*.png` and `{split}annot/*.png`, listed in `{split}.txt` if there is one.

    The published lists carry the absolute paths of their author's machine, so only the last two parts of a path count.
    """

    class_names: tuple[str, ...] = (
        *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
        *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
    )
    palette: tuple[Colour, ...] = (
        *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0)),
        *((192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    )
    label_map: Mapping[int, int] | None = {**{label: label for label in range(11)}, 11: IGNORED}

    def list_samples(self) -> Sequence[Sample]:
        """Return the pairs of `{split}.txt`, else the images of the directory `{split}`; DataError without either."""
        listed = self.root / f"{self.split}.txt"
        if listed.is_file():
            return [_pair(listed, line) for line in read_list(listed, root=self.root)]
        if not (self.root / self.split).is_dir():
            raise DataError(
                f"{self.root}: there is neither {self.split}.txt nor a directory {self.split}; needed is CamVid as in "
                "the SegNet tutorial: set data.root, data.train_split and data.val_split"
            )
        names = sorted(path.name for path in (self.root / self.split).glob("*.png"))
        return [Sample(Path(n).stem, f"{self.split}/{n}", f"{self.split}annot/{n}") for n in names]


def _pair(listed: Path, line: str) -> Sample:
    parts = line.split()
    if len(parts) != 2:
        raise DataError(f"{listed}: '{line}' is not a pair; needed is an image and its mask on each line")
    image, label = ("/".join(PurePosixPath(part).parts[-2:]) for part in parts)
    return Sample(PurePosixPath(image).stem, image, label)
