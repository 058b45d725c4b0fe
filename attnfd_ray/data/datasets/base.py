"""What a segmentation dataset is: a list of image and mask files, each read and checked on its own.

A dataset is one class and one line in the registry; anyone's `module:Class` that takes (root,
split) serves as well.
"""

from __future__ import annotations

import hashlib
import stat
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from attnfd_ray import registry
from attnfd_ray.config.overrides import digest
from attnfd_ray.config.schema import DataSettings
from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.files import Bytes, few, read_image, read_mask
from attnfd_ray.data.palette import Colour
from attnfd_ray.data.storage.image_cache import ImageCache, open_cache
from attnfd_ray.data.storage.remote import local_root
from attnfd_ray.errors import DataError

_MEANINGLESS = 254
"""What a mask's value becomes that stands for nothing; no dataset has that many classes."""


class Sample(NamedTuple):
    """One image and its mask: the id, and both files relative to the dataset's root."""

    id: str
    image: str
    label: str


class _File(NamedTuple):
    num_bytes: int
    changed_ns: int


class SegmentationDataset(ABC):
    """The images of one split, in the order of its list.

    A subclass names its classes and colours and lists its files; everything is checked here:
    `problems` tells at once what is wrong with the list and which files are missing, and whatever
    is inside a file is found when it is read.
    """

    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    label_map: Mapping[int, int] | None = None
    """What every value of a mask means, a class or IGNORED; None: values are class ids, and IGNORED."""
    remedy: str = "check that data.name is what data.root holds"
    """The way out where a mask has values that mean nothing."""
    published: Mapping[str, int] = {}
    """How many images a split has where the dataset comes from, as far as that is published."""
    unread: Sequence[str] = ()
    """Patterns of files under the root that are never read, and not copied where the root is a URI."""

    _cache: ImageCache | None = None

    def __init__(self, root: str | Path, split: str) -> None:
        self.root = local_root(root, unread=self.unread)
        self.split = split
        if _leaves_root(split):
            raise DataError(
                f"{self.root}: split '{split}' is outside the dataset; needed is the name of a "
                "list in it"
            )
        try:
            if not self.root.is_dir():
                raise DataError(
                    f"{self.root}: no such directory; set data.root to the directory of the dataset"
                )
            self.samples = list(self.list_samples())
        except OSError as error:
            reason = error.strerror or error
            raise DataError(
                f"{error.filename}: cannot be read ({reason}); check who may read data.root"
            ) from None
        self._meanings = _table(self.label_map, self.num_classes)

    @abstractmethod
    def list_samples(self) -> Sequence[Sample]:
        """Return the samples of `self.split` under `self.root`; DataError where the split's list is
        missing.
        """

    def read_values(self, sample: Sample) -> Bytes:
        """Return values_HW of a sample's mask as its file has them; DataError if there is no such
        mask in it.
        """
        return read_mask(self.root / sample.label)

    @property
    def num_classes(self) -> int:
        """How many classes there are; labels are 0..num_classes-1 or IGNORED."""
        return len(self.class_names)

    @property
    def ids(self) -> list[str]:
        """The names of the samples, in order."""
        return [sample.id for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def paths(self, index: int) -> tuple[Path, Path]:
        """Return the files of the image and of its mask."""
        sample = self.samples[index]
        return self.root / sample.image, self.root / sample.label

    def warnings(self) -> list[str]:
        """Return what is most likely a mistake though a run can do with it, a line each; nothing
        inside a file.
        """
        return []

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image_CHW (uint8, RGB) and label_HW (uint8, class ids or IGNORED); DataError names
        a broken file.

        An image's channels are last in memory: as files are decoded, and as resizing is fastest.
        """
        if self._cache is None:
            return self._decode(index)
        return self._cache.read(index, lambda: self._decode(index))

    def _decode(self, index: int) -> tuple[Tensor, Tensor]:
        image_path, label_path = self.paths(index)
        try:
            image_HWC = read_image(image_path)
        except DataError as error:
            raise DataError([*error.problems, *self._mask_problems(self.samples[index])]) from None
        label_HW = self._read_label(self.samples[index])
        if image_HWC.shape[:2] != label_HW.shape:
            (height, width), (rows, columns) = image_HWC.shape[:2], label_HW.shape
            raise DataError(
                f"{label_path}: the mask is {columns}x{rows} and its image {width}x{height}; "
                "needed is "
                "the same size: check that they belong together"
            )
        return torch.from_numpy(image_HWC).permute(2, 0, 1), torch.from_numpy(label_HW)

    def keep_decoded(self, data: DataSettings) -> None:
        """Decode every image once for all that read the dataset on this machine, as `data.cache`
        says.
        """
        files = (
            (sample.id, self._states[sample.image], self._states[sample.label])
            for sample in self.samples
        )
        facts = [
            str(type(self)),
            str(self.root.resolve()),
            self.split,
            self._meanings.tolist(),
            self.fingerprint(),
        ]
        self._cache = open_cache(data, key=digest([*facts, _source(type(self)), *files]))

    def memory_left_bytes(self) -> int:
        """Return how much shared memory decoded images may still take."""
        return 0 if self._cache is None else self._cache.memory_left_bytes()

    def close(self) -> None:
        """Let go of decoded images."""
        if self._cache is not None:
            self._cache.close()

    def recording(self, index: int) -> str | None:
        """Return the film that an image is a frame of, where the dataset tells: frames of one film
        are much alike.
        """
        return None

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with the ids or the size of any file, wherever the
        dataset lies.
        """
        sizes = {
            name: found.num_bytes if isinstance(found, _File) else found
            for name, found in self._states.items()
        }
        lines = (
            f"{sample.id}\t{sizes[sample.image]}\t{sizes[sample.label]}\n"
            for sample in self.samples
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]

    def problems(self) -> list[str]:
        """Return what is wrong with the list and which files are missing, a line each; nothing
        inside a file.
        """
        where = f"{self.root}: split '{self.split}'"
        if not self.samples:
            return [f"{where} lists no image; needed is at least one"]
        found = []
        outside = [sample.id for sample in self.samples if any(map(_leaves_root, sample))]
        if outside:
            found.append(
                f"{where} lists files outside the dataset: {few(outside)}; needed are names "
                "inside data.root"
            )
        doubles = [sample_id for sample_id, times in Counter(self.ids).items() if times > 1]
        if doubles:
            found.append(
                f"{where} lists {len(doubles)} ids more than once: {few(doubles)}; needed is once"
            )
        lacking: dict[str, list[str]] = {}
        for name, found_there in self._states.items():
            if isinstance(found_there, str):
                lacking.setdefault(found_there, []).append(name)
        found += [
            f"{self.root}: {len(names)} of the {len(self._states)} files of split '{self.split}' "
            f"{reason}: "
            f"{few(names)}; {_REMEDY.get(reason, 'check who may read them and where links lead')}"
            for reason, names in lacking.items()
        ]
        return found

    def present(self) -> list[int]:
        """Return which samples have both their files: the others are among the `problems`."""
        return [
            index
            for index, sample in enumerate(self.samples)
            if all(
                isinstance(self._states.get(name), _File) for name in (sample.image, sample.label)
            )
        ]

    def checked(self) -> Self:
        """Return this dataset; DataError with all `problems` if there are any."""
        if found := self.problems():
            raise DataError(found)
        return self

    @cached_property
    def _states(self) -> dict[str, _File | str]:
        """The state of every image and mask in the root by name, or why it cannot be read."""
        inside = (sample for sample in self.samples if not any(map(_leaves_root, sample)))
        return {
            name: _state_of(self.root / name)
            for sample in inside
            for name in (sample.image, sample.label)
        }

    def _read_label(self, sample: Sample) -> Bytes:
        values_HW = self.read_values(sample)
        label_HW: Bytes = self._meanings[values_HW]
        if (label_HW == _MEANINGLESS).any():
            wrong = np.unique(values_HW[label_HW == _MEANINGLESS]).tolist()
            raise DataError(
                f"{self.root / sample.label}: mask values {few(wrong)} are no class; needed are "
                f"{self._known()}: "
                f"{self.remedy}"
            )
        return label_HW

    def _mask_problems(self, sample: Sample) -> list[str]:
        try:
            self._read_label(sample)
        except DataError as error:
            return error.problems
        return []

    def _known(self) -> str:
        """Return the values a mask may have, as words."""
        if self.label_map is None:
            return f"0..{self.num_classes - 1} or {IGNORED}"
        values = sorted(self.label_map)
        return (
            f"{values[0]}..{values[-1]}"
            if len(values) == values[-1] - values[0] + 1
            else few(values, 40)
        )


def data_hash(splits: Sequence[SegmentationDataset]) -> str:
    """Return 16 hex digits that change with any file's id or size, of the splits a run learns and
    chooses by.
    """
    return hashlib.sha256(" ".join(split.fingerprint() for split in splits).encode()).hexdigest()[
        :16
    ]


def open_dataset(data: DataSettings, *, split: str) -> SegmentationDataset:
    """Return the split of the dataset that the settings name; DataError if its list or files are
    not all right.
    """
    dataset: SegmentationDataset = registry.load("dataset", data.name)(data.root, split)
    dataset.checked().keep_decoded(data)
    return dataset


def refresh(data: DataSettings) -> None:
    """Make this machine's copy of a root that is a URI what the URI is now."""
    local_root(
        data.root, unread=getattr(registry.load("dataset", data.name), "unread", ()), relist=True
    )


_MISSING = "are missing"
_REMEDY = {
    _MISSING: "add them or take them off the list",
    "are empty": "copy them again",
    "are no files": "put image files in their place",
}


def _state_of(path: Path) -> _File | str:
    """Return what changes when a file does, or what is wrong with it."""
    try:
        found = path.stat()
    except (FileNotFoundError, ValueError):  # ValueError: no file has such a name
        return _MISSING
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
        return "are no files"
    return _File(found.st_size, found.st_mtime_ns) if found.st_size else "are empty"


def _leaves_root(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _source(kind: type) -> list[str]:
    """Return the hashes of the modules that say how a kind of dataset reads its files."""
    modules = [
        sys.modules[base.__module__]
        for base in kind.__mro__
        if issubclass(base, SegmentationDataset)
    ]
    files = [Path(file) for module in modules if (file := getattr(module, "__file__", None))]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()]


def _table(label_map: Mapping[int, int] | None, num_classes: int) -> Bytes:
    """Return the meaning of each of the 256 values of a mask."""
    assert num_classes <= _MEANINGLESS, "labels are bytes"
    meanings = np.full(256, _MEANINGLESS, dtype=np.uint8)
    if label_map is None:
        label_map = {label: label for label in (*range(num_classes), IGNORED)}
    for value, label in label_map.items():
        meanings[value] = label
    return meanings
