"""Anybody's own images and masks, described by the file `classes.yaml` beside them."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from attnfd_ray.data.datasets.base import Sample, SegmentationDataset
from attnfd_ray.data.datasets.folder_layout import FILE, read_layout
from attnfd_ray.data.files import Bytes, few, read_colours, read_list
from attnfd_ray.errors import DataError

_MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".webp", *_MASK_ENDINGS)


class Folder(SegmentationDataset):
    """Images and masks of equal names, extensions aside; classes.yaml says where they are and what
    masks hold.

    A split is the directory that `{split}` stands for; where classes.yaml has one directory for the
    images of all splits, it is the list `{split}.txt` in the root, one name a line, of which only
    the last part counts. Classes are numbered in the order of classes.yaml.
    """

    remedy: str = f"add them to classes or ignore in {FILE}"

    def list_samples(self) -> Sequence[Sample]:
        """Return the images by name, or as listed; DataError for what is wrong with classes.yaml or
        the directories.
        """
        self._layout = layout = read_layout(self.root)
        self.class_names = tuple(known.name for known in layout.classes)
        self.palette = layout.palette
        self.label_map = layout.label_of_id if layout.masks_hold == "ids" else None
        images, masks = (
            text.replace("{split}", self.split) for text in (layout.images, layout.masks)
        )
        image_of, mask_of = self._files(images, _IMAGE_ENDINGS), self._files(masks, _MASK_ENDINGS)
        self._unread = self._without_image(mask_of, image_of)
        if "{split}" not in layout.images:
            names = read_list(self.root / f"{self.split}.txt", root=self.root)
        elif PurePosixPath(images) == PurePosixPath(masks) and layout.suffix:
            names = [stem for stem in image_of if not stem.endswith(layout.suffix)]
        else:
            names = list(image_of)
        samples = []
        for name in names:
            stem = _stem(name, image_of)
            label = f"{stem}{layout.suffix}"
            samples.append(
                Sample(
                    stem,
                    image_of.get(stem, f"{images}/{name}"),
                    mask_of.get(label, f"{masks}/{label}.png"),
                )
            )
        return samples

    def warnings(self) -> list[str]:
        """Return the line that names masks nobody reads, if there are any: most often the image has
        another name.
        """
        line = (
            f"{self.root}: {len(self._unread)} masks have no image of their name "
            f"({', '.join(_IMAGE_ENDINGS)}), so "
            f"nobody reads them: {few(self._unread)}; rename the images that are meant, or remove "
            "the masks"
        )
        return [line] if self._unread else []

    def read_values(self, sample: Sample) -> Bytes:
        """Return values_HW of a sample's mask: its ids, or the classes that its colours stand
        for.
        """
        if self._layout.masks_hold == "ids":
            return super().read_values(sample)
        return read_colours(
            self.root / sample.label, self._layout.label_of_colour, remedy=self.remedy
        )

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with the ids, the size of any file or what classes.yaml
        says.
        """
        return hashlib.sha256(
            f"{super().fingerprint()} {self._layout.model_dump_json(warnings=False)}".encode()
        ).hexdigest()[:16]

    def _without_image(self, mask_of: Mapping[str, str], image_of: Collection[str]) -> list[str]:
        """Return the masks that belong to no image there is, listed or not."""
        suffix, images = self._layout.suffix, self._layout.images
        if (
            "{split}" in images and "{split}" not in self._layout.masks
        ):  # an image may lie in another split
            places = f"{glob.escape(images)}/*".replace("{split}", "*")
            image_of = {
                path.stem for path in self.root.glob(places) if _is_one(path, _IMAGE_ENDINGS)
            }
        return [
            mask
            for label, mask in mask_of.items()
            if label.endswith(suffix) and label.removesuffix(suffix) not in image_of
        ]

    def _files(self, directory: str, endings: Sequence[str]) -> dict[str, str]:
        """Return stem -> file of a directory, by name; DataError if it is not there or has two
        files of one stem.
        """
        place = self.root / directory
        if not place.is_dir():
            raise DataError(
                f"{self.root}: there is no directory {directory}; needed is what {FILE} says: set "
                "data.train_split and "
                f"data.val_split, or images and masks in {FILE}"
            )
        found: dict[str, str] = {}
        for path in sorted(place.iterdir()):
            if _is_one(path, endings):
                name = (PurePosixPath(directory) / path.name).as_posix()
                if found.setdefault(path.stem, name) != name:
                    raise DataError(
                        f"{self.root}: {found[path.stem]} and {name} have one name but for their "
                        "extensions, by which "
                        "images and masks are paired; needed is one of them: remove or rename the "
                        "other"
                    )
        return found


def _is_one(path: Path, endings: Sequence[str]) -> bool:
    return path.suffix.lower() in endings and not path.name.startswith(".")


def _stem(name: str, known: Collection[str]) -> str:
    """Return the last part of a listed name without its extension; the `.b` of `a.b` is none."""
    path = PurePosixPath(name)
    return (
        path.stem if path.suffix.lower() in _IMAGE_ENDINGS and path.name not in known else path.name
    )
