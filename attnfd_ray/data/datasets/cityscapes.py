"""Cityscapes with its 19 evaluation classes, with fine or coarse labels."""

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
"""Split -> its directory, and the kind of its masks."""
_IMAGE_ENDING = "_leftImg8bit.png"
_CLASSES: Mapping[str, tuple[int, Colour]] = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
"""The classes in the order of their train ids: name -> label id in a mask, and colour."""


class Cityscapes(SegmentationDataset):
    """Cityscapes as its archives unpack; data.root may also be the directory around `cityscapes`.

    Images are in leftImg8bit, or in `images` as the released AttnFD code expects. The masks are
    *_labelTrainIds.png if the split has them, else *_labelIds.png. The splits train and val have
    fine masks; train_coarse, val_coarse and train_extra have coarse ones.
    """

    class_names: tuple[str, ...] = tuple(_CLASSES)
    palette: tuple[Colour, ...] = tuple(colour for _, colour in _CLASSES.values())
    # A licence plate has the id -1, which is 255 in a byte.
    label_map: Mapping[int, int] | None = {
        **dict.fromkeys((*range(34), 255), IGNORED),
        **{label_id: train_id for train_id, (label_id, _) in enumerate(_CLASSES.values())},
    }
    published: Mapping[str, int] = {
        "train": 2975,
        "val": 500,
        "train_coarse": 2975,
        "val_coarse": 500,
        "train_extra": 19_998,
    }
    unread: Sequence[str] = (
        "*_color.png",
        "*_instanceIds.png",
        "*_instanceTrainIds.png",
        "*_polygons.json",
        "*/test/*",
        "*rightImg8bit*/*",
        "*leftImg8bit_sequence*/*",
        "*disparity*/*",
    )

    def list_samples(self) -> Sequence[Sample]:
        """Return the images by city and name.

        DataError if there is no such split, or if only some images have a mask of train ids.
        """
        images, masks, annotation = self._directories()
        frames = self._frames(images, _IMAGE_ENDING)
        ending = f"_{annotation}_labelIds.png"
        masked = self._frames(masks, ending)
        train_ids_ending = f"_{annotation}_labelTrainIds.png"
        with_train_ids = self._frames(masks, train_ids_ending)
        if frames & with_train_ids:
            only_label_ids = (frames & masked) - with_train_ids
            if only_label_ids:
                raise DataError(
                    f"{self.root / masks}: {len(frames & with_train_ids)} images have a mask "
                    f"*{train_ids_ending} and {len(only_label_ids)} only *{ending}: "
                    f"{few(sorted(only_label_ids))}; needed is one kind for all: run "
                    "cityscapesScripts' createTrainIdLabelImgs again, or remove the train ids"
                )
            self.label_map = None
            ending = train_ids_ending
            masked = with_train_ids
        self._without_image = sorted(f"{masks}/{frame}{ending}" for frame in masked - frames)
        return [
            Sample(
                frame.rpartition("/")[2],
                f"{images}/{frame}{_IMAGE_ENDING}",
                f"{masks}/{frame}{ending}",
            )
            for frame in sorted(frames)
        ]

    def problems(self) -> list[str]:
        """Return the faults of the list, missing files, and masks without an image, one line each.

        Opens no file.
        """
        found = super().problems()
        if self._without_image:
            found.append(
                f"{self.root}: {len(self._without_image)} masks of split '{self.split}' have no "
                f"image: {few(self._without_image)}; add their images or remove them"
            )
        return found

    def _directories(self) -> tuple[str, str, str]:
        """Return the directory of the split's images, that of its masks, and gtFine or gtCoarse.

        DataError if there is no such split or directory.
        """
        where = f"{self.root}: split '{self.split}'"
        if self.split not in _SPLITS:
            reason = "is not a split of Cityscapes"
            if self.split == "test":
                reason = "has only dummy masks"
            raise DataError(
                f"{where} {reason}; there is: {', '.join(_SPLITS)}; set data.train_split and "
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
                "data.root to the directory that holds leftImg8bit"
            )
        masks = f"{homes[images]}{annotation}/{part}"
        if not (self.root / masks).is_dir():
            raise DataError(
                f"{where} has no masks; needed is a directory {masks}: unpack {annotation} beside "
                "the images"
            )
        return images, masks, annotation

    def _frames(self, directory: str, ending: str) -> set[str]:
        """Return `city/frame` of every file with this ending in a directory of cities."""
        base = self.root / directory
        return {
            path.relative_to(base).as_posix().removesuffix(ending)
            for path in base.glob(f"*/*{ending}")
        }
