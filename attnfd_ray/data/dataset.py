"""What a segmentation dataset is: a list of image and mask files, each read and checked on its own.

A dataset is one class and one line in the registry; anyone's `module:Class` that takes (root, split) serves as well.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attnfd_ray import registry
from attnfd_ray.config.schema import DataSettings
from attnfd_ray.config.values import IGNORED
from attnfd_ray.data.files import Bytes, few, read_image, read_mask
from attnfd_ray.data.palette import Colour
from attnfd_ray.errors import DataError


class Sample(NamedTuple):
    """One image and its mask: the id, and both files relative to the dataset's root."""

    id: str
    image: str
    label: str


class SegmentationDataset(ABC):
    """The images of one split, in the order of its list.

    A subclass names its classes and colours and lists its files; everything is checked here: at once that all files
    exist, and whatever is inside a file when it is read.
    """

    class_names: ClassVar[tuple[str, ...]]
    palette: ClassVar[tuple[Colour, ...]]
    label_map: ClassVar[Mapping[int, int]] = {}
    """Mask values that mean another id: {11: IGNORED}."""

    def __init__(self, root: str | Path, split: str) -> None:
        self.root = Path(root).expanduser()
        self.split = split
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such directory; set data.root to the directory of the dataset")
        self._samples = list(self.list_samples())
        self._check_ids()
        self._sizes = self._file_sizes()
        self._to_id: Bytes = np.arange(256, dtype=np.uint8)
        for value, label in self.label_map.items():
            self._to_id[value] = label

    @abstractmethod
    def list_samples(self) -> Sequence[Sample]:
        """Return the samples of `self.split` under `self.root`; DataError where the split's list is missing."""

    @property
    def num_classes(self) -> int:
        """How many classes there are; labels are 0..num_classes-1 or IGNORED."""
        return len(self.class_names)

    @property
    def ids(self) -> list[str]:
        """The names of the samples, in order."""
        return [sample.id for sample in self._samples]

    def __len__(self) -> int:
        return len(self._samples)

    def paths(self, index: int) -> tuple[Path, Path]:
        """Return the files of the image and of its mask."""
        sample = self._samples[index]
        return self.root / sample.image, self.root / sample.label

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image_CHW (uint8, RGB) and label_HW (uint8, class ids or IGNORED); DataError names a broken file."""
        image_path, label_path = self.paths(index)
        image_HWC, label_HW = read_image(image_path), self._read_label(label_path)
        if image_HWC.shape[:2] != label_HW.shape:
            (height, width), (rows, columns) = image_HWC.shape[:2], label_HW.shape
            raise DataError(
                f"{label_path}: the mask is {columns}x{rows} and its image {width}x{height}; needed is "
                "the same size: check that they belong together"
            )
        return torch.from_numpy(image_HWC).permute(2, 0, 1).contiguous(), torch.from_numpy(label_HW)

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with the ids or the size of any file, wherever the dataset lies."""
        sizes = zip(self._sizes[::2], self._sizes[1::2], strict=True)
        lines = (f"{name}\t{image}\t{mask}\n" for name, (image, mask) in zip(self.ids, sizes, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]

    def _read_label(self, path: Path) -> Bytes:
        label_HW = self._to_id[read_mask(path)]
        wrong = label_HW[(label_HW >= self.num_classes) & (label_HW != IGNORED)]
        if wrong.size:
            raise DataError(
                f"{path}: mask values {few(np.unique(wrong).tolist())} are no class; needed are "
                f"0..{self.num_classes - 1} or {IGNORED}: check that data.name is what data.root holds"
            )
        return label_HW

    def _check_ids(self) -> None:
        where = f"{self.root}: split '{self.split}'"
        if not self._samples:
            raise DataError(f"{where} lists no image; needed is at least one")
        outside = [sample.id for sample in self._samples if any(map(_leaves_root, sample))]
        if outside:
            raise DataError(
                f"{where} lists files outside the dataset: {few(outside)}; needed are names inside data.root"
            )
        doubles = [sample_id for sample_id, times in Counter(self.ids).items() if times > 1]
        if doubles:
            raise DataError(f"{where} lists {len(doubles)} ids more than once: {few(doubles)}; needed is once")

    def _file_sizes(self) -> list[int]:
        """Return the bytes of every image and mask, in turn; DataError if any is missing."""
        sizes, missing = [], []
        for name in (name for sample in self._samples for name in (sample.image, sample.label)):
            try:
                sizes.append((self.root / name).stat().st_size)
            except OSError:
                missing.append(name)
        if missing:
            raise DataError(
                f"{self.root}: {len(missing)} of the {2 * len(self)} files of split '{self.split}' are missing: "
                f"{few(missing)}; add them or take them off the list"
            )
        return sizes


def open_dataset(data: DataSettings, *, split: str) -> SegmentationDataset:
    """Return the split of the dataset that the settings name; DataError if its files are not all there."""
    dataset: SegmentationDataset = registry.load("dataset", data.name)(data.root, split)
    return dataset


def _leaves_root(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts
