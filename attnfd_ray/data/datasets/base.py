"""The base class of all datasets: a list of image and mask files, each read and checked alone.

A dataset is one class and one line in the registry. A user's own `module:Class` works as well: it
takes (root, split).
"""

from __future__ import annotations

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from attnfd_ray import registry
from attnfd_ray.config.overrides import digest
from attnfd_ray.config.schema import DataSettings
from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.datasets import label_table
from attnfd_ray.data.datasets.label_table import LabelTable
from attnfd_ray.data.datasets.sample_files import Sample, SampleFiles, leaves_root
from attnfd_ray.data.files import Bytes, read_image, read_mask
from attnfd_ray.data.palette import Colour
from attnfd_ray.data.storage.image_cache import ImageCache, open_cache
from attnfd_ray.data.storage.remote import local_root
from attnfd_ray.errors import DataError

__all__ = ["IGNORED", "Sample", "SegmentationDataset", "data_hash", "open_dataset", "refresh"]


class SegmentationDataset(ABC):
    """The images of one split, in the order of its list.

    A subclass names its classes and colours and lists its files. All checks are here: `problems`
    returns at once every fault of the list and every missing file. A fault inside a file is found
    when that file is read.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from attnfd_ray.data.datasets.base import Sample, SegmentationDataset
    >>> class Pairs(SegmentationDataset):
    ...     class_names = ("background", "leaf")
    ...     palette = ((0, 0, 0), (0, 128, 0))
    ...
    ...     def list_samples(self):
    ...         names = sorted(path.stem for path in (self.root / self.split).glob("*.jpg"))
    ...         return [Sample(n, f"{self.split}/{n}.jpg", f"{self.split}/{n}.png") for n in names]
    >>> with tempfile.TemporaryDirectory() as root:
    ...     folder = Path(root) / "train"
    ...     folder.mkdir()
    ...     Image.new("RGB", (4, 3)).save(folder / "a.jpg")
    ...     Image.new("L", (4, 3), 1).save(folder / "a.png")
    ...     dataset = Pairs(root, "train").checked()
    ...     image_CHW, label_HW = dataset.read(0)
    >>> dataset.ids, tuple(image_CHW.shape), label_HW.unique().tolist()
    (['a'], (3, 3, 4), [1])
    """

    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    label_map: Mapping[int, int] | None = None
    """Value of a mask -> class id or IGNORED. None: values are class ids and IGNORED."""
    remedy: str = "check that data.name is what data.root holds"
    """The end of the error line about mask values that mean nothing: what the user can do."""
    published: Mapping[str, int] = {}
    """Split -> its number of images as published, where it is known."""
    unread: Sequence[str] = ()
    """Patterns of files under the root that are never read. They are not copied from a URI."""

    _cache: ImageCache | None = None

    def __init__(self, root: str | Path, split: str) -> None:
        self.root = local_root(root, unread=self.unread)
        self.split = split
        if leaves_root(split):
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
        self._label_table = LabelTable(self.label_map, self.num_classes)

    @abstractmethod
    def list_samples(self) -> Sequence[Sample]:
        """Return the samples of `self.split` under `self.root`. DataError if there is no list."""

    def read_values(self, sample: Sample) -> Bytes:
        """Return values_HW of a sample's mask, before `label_map`. DataError if it is no mask."""
        return read_mask(self.root / sample.label)

    @property
    def num_classes(self) -> int:
        """The number of classes; labels are 0..num_classes-1 or IGNORED."""
        return len(self.class_names)

    @property
    def ids(self) -> list[str]:
        """The ids of the samples, in order."""
        return [sample.id for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def paths(self, index: int) -> tuple[Path, Path]:
        """Return the files of an image and of its mask."""
        sample = self.samples[index]
        return self.root / sample.image, self.root / sample.label

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image_CHW (uint8, RGB) and label_HW (uint8, class ids or IGNORED).

        The image is channels-last in memory: files are decoded so, and resizing is fastest so.
        DataError names a broken file.
        """
        if self._cache is None:
            return self._decode(index)
        return self._cache.read(index, lambda: self._decode(index))

    def recording(self, index: int) -> str | None:
        """Return the film that an image is a frame of, or None if the dataset does not know.

        Frames of one film are much alike.
        """
        return None

    def warnings(self) -> list[str]:
        """Return likely mistakes that do not stop a run, one line each. Opens no file."""
        return []

    def problems(self) -> list[str]:
        """Return the faults of the list and the missing files, one line each. Opens no file."""
        return self._files.problems()

    def checked(self) -> Self:
        """Return this dataset. DataError with all `problems` if there are any."""
        if found := self.problems():
            raise DataError(found)
        return self

    def present(self) -> list[int]:
        """Return the indices of the samples that have both files; others are in `problems`."""
        return self._files.readable()

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with the ids or the size of any file, under any root."""
        return self._files.fingerprint()

    def keep_decoded(self, data: DataSettings) -> None:
        """Share decoded images with all readers on this machine, as `data.cache` says."""
        stats = self._files.stats
        files = [(sample.id, stats[sample.image], stats[sample.label]) for sample in self.samples]
        parts = [
            str(type(self)),
            str(self.root.resolve()),
            self.split,
            self._label_table.labels.tolist(),
            self.fingerprint(),
            _source_hashes(type(self)),
            *files,
        ]
        self._cache = open_cache(data, key=digest(parts))

    def memory_left_bytes(self) -> int:
        """Return how much more shared memory the cache of decoded images may take."""
        if self._cache is None:
            return 0
        return self._cache.memory_left_bytes()

    def close(self) -> None:
        """Release the cache of decoded images."""
        if self._cache is not None:
            self._cache.close()

    @cached_property
    def _files(self) -> SampleFiles:
        return SampleFiles(self.root, self.split, self.samples)

    def _decode(self, index: int) -> tuple[Tensor, Tensor]:
        sample = self.samples[index]
        image_path, label_path = self.paths(index)
        try:
            image_HWC = read_image(image_path)
        except DataError as error:
            raise DataError([*error.problems, *self._mask_problems(sample)]) from None
        label_HW = self._read_label(sample)
        if image_HWC.shape[:2] != label_HW.shape:
            height, width = image_HWC.shape[:2]
            rows, columns = label_HW.shape
            raise DataError(
                f"{label_path}: the mask is {columns}x{rows} and its image {width}x{height}; "
                "needed is the same size: check that they belong together"
            )
        return torch.from_numpy(image_HWC).permute(2, 0, 1), torch.from_numpy(label_HW)

    def _read_label(self, sample: Sample) -> Bytes:
        values_HW = self.read_values(sample)
        path = self.root / sample.label
        return self._label_table.apply(values_HW, path=path, remedy=self.remedy)

    def _mask_problems(self, sample: Sample) -> list[str]:
        try:
            self._read_label(sample)
        except DataError as error:
            return error.problems
        return []


def data_hash(splits: Sequence[SegmentationDataset]) -> str:
    """Return 16 hex digits that change with the id or size of any file in the given splits."""
    fingerprints = " ".join(split.fingerprint() for split in splits)
    return hashlib.sha256(fingerprints.encode()).hexdigest()[:16]


def open_dataset(data: DataSettings, *, split: str) -> SegmentationDataset:
    """Return a split of the dataset that `data` names. DataError with all its `problems`."""
    dataset: SegmentationDataset = registry.load("dataset", data.name)(data.root, split)
    dataset.checked().keep_decoded(data)
    return dataset


def refresh(data: DataSettings) -> None:
    """Update this machine's copy of a root that is a URI; do nothing for a path."""
    unread = getattr(registry.load("dataset", data.name), "unread", ())
    local_root(data.root, unread=unread, relist=True)


def _source_hashes(kind: type) -> list[str]:
    """Return the hashes of the modules that define how a kind of dataset reads its files."""
    bases = [base for base in kind.__mro__ if issubclass(base, SegmentationDataset)]
    sources = [getattr(sys.modules[base.__module__], "__file__", None) for base in bases]
    files = [Path(label_table.__file__), *(Path(source) for source in sources if source)]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()]
