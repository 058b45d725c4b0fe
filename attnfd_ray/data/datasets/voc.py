"""Pascal VOC 2012, and ToyScenes, which has the same layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attnfd_ray.data.datasets.base import Sample, SegmentationDataset
from attnfd_ray.data.files import read_list
from attnfd_ray.data.palette import Colour, voc_colormap
from attnfd_ray.data.toyscenes_classes import CLASS_NAMES
from attnfd_ray.errors import DataError

_HOMES = ("", "VOC2012", "VOCdevkit/VOC2012", "VOC2012/VOC2012", "VOCdevkit/VOC2012/VOC2012")
_LISTS = "ImageSets/Segmentation"
_TRAINAUG_NAMES = ("trainaug", "train_aug")
_AUGMENTED = (*_TRAINAUG_NAMES, "aug")


class VOC(SegmentationDataset):
    """VOC 2012 as the official archive unpacks; data.root may also be VOCdevkit or VOC2012 itself.

    The splits are the lists in ImageSets/Segmentation. Those of the augmented set (trainaug,
    train_aug, aug) take their masks from SegmentationClassAug.
    """

    class_names: tuple[str, ...] = (
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    )
    palette: tuple[Colour, ...] = voc_colormap(21)
    published: Mapping[str, int] = {
        "train": 1464,
        "val": 1449,
        "trainval": 2913,
        "trainaug": 10_582,
        "train_aug": 10_582,
        "aug": 9118,
    }
    unread: Sequence[str] = ("*Annotations/*", "*SegmentationObject/*")

    def list_samples(self) -> Sequence[Sample]:
        """Return the samples of the split's list. DataError if there is no VOC 2012 or no list."""
        home = self._home()
        masks = "SegmentationClass"
        if self.split in _AUGMENTED:
            masks = "SegmentationClassAug"
        ids = read_list(self.root / home / _LISTS / f"{self._list_name(home)}.txt", root=self.root)
        return [
            Sample(sample_id, f"{home}JPEGImages/{sample_id}.jpg", f"{home}{masks}/{sample_id}.png")
            for sample_id in ids
        ]

    def _home(self) -> str:
        """Return the path of VOC2012 under the root: empty, or ending in a slash."""
        for home in _HOMES:
            if (self.root / home / _LISTS).is_dir():
                return home and f"{home}/"
        raise DataError(
            f"{self.root}: no VOC 2012 here; needed is {_LISTS} in it or in "
            f"{', '.join(_HOMES[1:])}: set data.root to the directory that holds VOCdevkit"
        )

    def _list_name(self, home: str) -> str:
        """Return the name of the split's list; trainaug and train_aug name the same list."""
        if self.split in _TRAINAUG_NAMES:
            for name in _TRAINAUG_NAMES:
                if (self.root / home / _LISTS / f"{name}.txt").is_file():
                    return name
        return self.split


class ToyScenes(VOC):
    """The generated set of `attnfd-ray data toyscenes`."""

    class_names: tuple[str, ...] = CLASS_NAMES
    palette: tuple[Colour, ...] = voc_colormap(len(CLASS_NAMES))
    published: Mapping[str, int] = {}
