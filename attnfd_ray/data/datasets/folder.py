"""A user's own images and masks, described by the file `classes.yaml` beside them."""

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
_SPLIT = "{split}"


class Folder(SegmentationDataset):
    """Images and masks of equal names, extensions aside. classes.yaml gives their directories.

    A split is the directory that `{split}` stands for. Where classes.yaml has one directory for the
    images of all splits, the split is the list `{split}.txt` in the root, one name a line; only the
    last part of a name counts. Classes are numbered in the order of classes.yaml.
    """

    remedy: str = f"add them to classes or ignore in {FILE}"

    def list_samples(self) -> Sequence[Sample]:
        """Return the images by name, or in the order of the list.

        DataError with all mistakes in classes.yaml, or for a missing directory.
        """
        self._layout = read_layout(self.root)
        self.class_names = tuple(found.name for found in self._layout.classes)
        self.palette = self._layout.palette
        self.label_map = None
        if self._layout.masks_hold == "ids":
            self.label_map = self._layout.label_of_id
        images = self._layout.images.replace(_SPLIT, self.split)
        masks = self._layout.masks.replace(_SPLIT, self.split)
        image_of = self._files_by_stem(images, _IMAGE_ENDINGS)
        mask_of = self._files_by_stem(masks, _MASK_ENDINGS)
        self._unread_masks = self._without_image(mask_of, image_of)
        samples = []
        for name in self._names(image_of, share_directory=_same_path(images, masks)):
            stem = _stem(name, image_of)
            label = f"{stem}{self._layout.suffix}"
            image_file = image_of.get(stem, f"{images}/{name}")
            mask_file = mask_of.get(label, f"{masks}/{label}.png")
            samples.append(Sample(stem, image_file, mask_file))
        return samples

    def read_values(self, sample: Sample) -> Bytes:
        """Return values_HW of a sample's mask: its ids, or the class ids of its colours."""
        if self._layout.masks_hold == "ids":
            return super().read_values(sample)
        path = self.root / sample.label
        return read_colours(path, self._layout.label_of_colour, remedy=self.remedy)

    def warnings(self) -> list[str]:
        """Return a line that names masks without an image; most often the image is misnamed."""
        if not self._unread_masks:
            return []
        line = (
            f"{self.root}: {len(self._unread_masks)} masks have no image of their name "
            f"({', '.join(_IMAGE_ENDINGS)}), so they are not read: {few(self._unread_masks)}; "
            "rename the images that are meant, or remove the masks"
        )
        return [line]

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with the ids, the file sizes or classes.yaml."""
        layout = self._layout.model_dump_json(warnings=False)
        return hashlib.sha256(f"{super().fingerprint()} {layout}".encode()).hexdigest()[:16]

    def _names(
        self,
        image_of: Mapping[str, str],
        *,
        share_directory: bool,
    ) -> list[str]:
        """Return the names of the split's images: listed ones, else all in its directory."""
        layout = self._layout
        if _SPLIT not in layout.images:
            return read_list(self.root / f"{self.split}.txt", root=self.root)
        if share_directory and layout.suffix:
            return [stem for stem in image_of if not stem.endswith(layout.suffix)]
        return list(image_of)

    def _without_image(
        self,
        mask_of: Mapping[str, str],
        image_of: Collection[str],
    ) -> list[str]:
        """Return the masks for which there is no image, in the list or not."""
        layout = self._layout
        if _SPLIT in layout.images and _SPLIT not in layout.masks:
            # The masks of all splits share a directory, so an image may be in another split.
            pattern = f"{glob.escape(layout.images)}/*".replace(_SPLIT, "*")
            paths = self.root.glob(pattern)
            image_of = {path.stem for path in paths if _has_ending(path, _IMAGE_ENDINGS)}
        return [
            mask
            for label, mask in mask_of.items()
            if label.endswith(layout.suffix) and label.removesuffix(layout.suffix) not in image_of
        ]

    def _files_by_stem(
        self,
        directory: str,
        endings: Sequence[str],
    ) -> dict[str, str]:
        """Return stem -> file of a directory, sorted by name.

        DataError if there is no such directory, or if two files share a stem.
        """
        path = self.root / directory
        if not path.is_dir():
            raise DataError(
                f"{self.root}: there is no directory {directory}; needed is what {FILE} says: set "
                f"data.train_split and data.val_split, or images and masks in {FILE}"
            )
        found: dict[str, str] = {}
        for file in sorted(path.iterdir()):
            if not _has_ending(file, endings):
                continue
            name = (PurePosixPath(directory) / file.name).as_posix()
            if file.stem in found:
                raise DataError(
                    f"{self.root}: {found[file.stem]} and {name} differ only in their extensions, "
                    "and images and masks are paired by the rest of the name; needed is one of "
                    "them: remove or rename the other"
                )
            found[file.stem] = name
        return found


def _same_path(first: str, second: str) -> bool:
    return PurePosixPath(first) == PurePosixPath(second)


def _has_ending(path: Path, endings: Sequence[str]) -> bool:
    """Return whether a file has one of these endings and is not hidden."""
    return path.suffix.lower() in endings and not path.name.startswith(".")


def _stem(name: str, known: Collection[str]) -> str:
    """Return the last part of a listed name without its extension.

    The `.b` of `a.b` is not an extension; and `a.jpg` stays whole if an image `a.jpg.png` exists.
    """
    path = PurePosixPath(name)
    if path.suffix.lower() in _IMAGE_ENDINGS and path.name not in known:
        return path.stem
    return path.name
