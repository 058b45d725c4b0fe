"""Cityscapes with its 19 classes of evaluation, finely or coarsely labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.datasets.base import Sample, SegmentationDataset
from attnfd_ray.data.files import few
from attnfd_ray.data.palette import Colour
from attnfd_ray.errors import DataError

_SPLITS = {
    "train": ("train", "gtFine"),
    "val": ("val", "gtFine"),
    "train_coarse": ("train", "gtCoarse"),
    "val_coarse": ("val", "gtCoarse"),
    "train_extra": ("train_extra", "gtCoarse"),
}
"""Split -> the directory of its images and that of its masks."""
_IMAGE = "_leftImg8bit.png"
_IDS_OF_CLASSES = (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)


class Cityscapes(SegmentationDataset):
    """Cityscapes as its archives unpack; data.root may also be the directory around `cityscapes`.

    Images are in leftImg8bit, or in `images` as the released AttnFD code wants them. The masks are
    *_labelTrainIds.png if the split has them, else *_labelIds.png. train, val: fine masks;
    train_coarse, val_coarse, train_extra: coarse.
    """

    class_names: tuple[str, ...] = (
        *(
            "road",
            "sidewalk",
            "building",
            "wall",
            "fence",
            "pole",
            "traffic light",
            "traffic sign",
            "vegetation",
        ),
        *(
            "terrain",
            "sky",
            "person",
            "rider",
            "car",
            "truck",
            "bus",
            "train",
            "motorcycle",
            "bicycle",
        ),
    )
    palette: tuple[Colour, ...] = (
        *(
            (128, 64, 128),
            (244, 35, 232),
            (70, 70, 70),
            (102, 102, 156),
            (190, 153, 153),
            (153, 153, 153),
        ),
        *(
            (250, 170, 30),
            (220, 220, 0),
            (107, 142, 35),
            (152, 251, 152),
            (70, 130, 180),
            (220, 20, 60),
            (255, 0, 0),
        ),
        *((0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
    )
    # a licence plate's id is -1, in a byte 255
    label_map: Mapping[int, int] | None = {
        **dict.fromkeys((*range(34), 255), IGNORED),
        **{value: label for label, value in enumerate(_IDS_OF_CLASSES)},
    }
    published: Mapping[str, int] = {
        "train": 2975,
        "val": 500,
        "train_coarse": 2975,
        "val_coarse": 500,
        "train_extra": 19_998,
    }
    unread: Sequence[str] = (
        *("*_color.png", "*_instanceIds.png", "*_instanceTrainIds.png", "*_polygons.json"),
        *("*/test/*", "*rightImg8bit*/*", "*leftImg8bit_sequence*/*", "*disparity*/*"),
    )

    def list_samples(self) -> Sequence[Sample]:
        """Return the images by city and name; DataError without such a split, or where only some
        have train ids.
        """
        images, masks, annotation = self._directories()
        frames = self._frames(images, _IMAGE)
        train_ids, label_ids = (
            f"_{annotation}_{kind}.png" for kind in ("labelTrainIds", "labelIds")
        )
        with_train_ids, with_label_ids = (
            self._frames(masks, train_ids),
            self._frames(masks, label_ids),
        )
        others = (frames & with_label_ids) - with_train_ids
        if frames & with_train_ids and others:
            raise DataError(
                f"{self.root / masks}: {len(frames & with_train_ids)} images have a mask "
                f"*{train_ids} and "
                f"{len(others)} only *{label_ids}: {few(sorted(others))}; needed is one kind for "
                "all: run "
                "cityscapesScripts' createTrainIdLabelImgs again, or remove the train ids"
            )
        if frames & with_train_ids:
            self.label_map = None
            ending, masked = train_ids, with_train_ids
        else:
            ending, masked = label_ids, with_label_ids
        self._without_image = sorted(f"{masks}/{frame}{ending}" for frame in masked - frames)
        return [
            Sample(f.rpartition("/")[2], f"{images}/{f}{_IMAGE}", f"{masks}/{f}{ending}")
            for f in sorted(frames)
        ]

    def problems(self) -> list[str]:
        """Return what is wrong with the list, which files are missing, and which masks have no
        image, a line each.
        """
        found = super().problems()
        if self._without_image:
            found.append(
                f"{self.root}: {len(self._without_image)} masks of split '{self.split}' have no "
                "image: "
                f"{few(self._without_image)}; add their images or remove them"
            )
        return found

    def _directories(self) -> tuple[str, str, str]:
        """Return the directories of the split's images and masks, and what kind these are;
        DataError without them.
        """
        where = f"{self.root}: split '{self.split}'"
        if self.split not in _SPLITS:
            why = "has only dummies for masks" if self.split == "test" else "is none of Cityscapes"
            raise DataError(
                f"{where} {why}; there is: {', '.join(_SPLITS)}; set data.train_split and "
                "data.val_split"
            )
        part, annotation = _SPLITS[self.split]
        homes = {
            f"{home}{name}/{part}": home
            for home in ("", "cityscapes/")
            for name in ("leftImg8bit", "images")
        }
        images = next((images for images in homes if (self.root / images).is_dir()), None)
        if images is None:
            raise DataError(
                f"{where} has no images; needed is a directory {' or '.join(homes)}: set "
                "data.root to the directory "
                "that holds leftImg8bit"
            )
        masks = f"{homes[images]}{annotation}/{part}"
        if not (self.root / masks).is_dir():
            raise DataError(
                f"{where} has no masks; needed is a directory {masks}: unpack {annotation} beside "
                "the images"
            )
        return images, masks, annotation

    def _frames(self, directory: str, ending: str) -> set[str]:
        """Return `city/frame` of every file in the cities of a directory whose name is a frame's
        with this ending.
        """
        place = self.root / directory
        return {
            path.relative_to(place).as_posix().removesuffix(ending)
            for path in place.glob(f"*/*{ending}")
        }
