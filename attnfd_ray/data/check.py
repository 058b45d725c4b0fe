"""Looks at a dataset before anything expensive starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.config.values import IGNORED
from attnfd_ray.data.dataset import SegmentationDataset, open_dataset
from attnfd_ray.data.files import few
from attnfd_ray.errors import DataError

_READ_EACH = 4
"""Images and masks of each split that are read: the first, the last and some between."""


@dataclass(frozen=True)
class DataSummary:
    """What a run works on: images of each split, the classes, and a hash of both splits' ids and file sizes."""

    num_train: int
    num_val: int
    class_names: tuple[str, ...]
    data_hash: str

    @property
    def num_classes(self) -> int:
        """How many classes a network has to tell apart."""
        return len(self.class_names)


def quick_check(data: DataSettings) -> DataSummary:
    """Open both splits and read a few images of each; DataError for whatever would stop a run later."""
    train, val = open_dataset(data, split=data.train_split), open_dataset(data, split=data.val_split)
    _check_disjoint(train, val)
    if data.pad_label >= train.num_classes and data.pad_label != IGNORED:
        raise DataError(
            f"data.pad_label {data.pad_label}: {data.name} has no such class; needed is 0..{train.num_classes - 1}, or "
            f"{IGNORED} for pixels that do not count"
        )
    for dataset in (train, val):
        for index in np.unique(np.linspace(0, len(dataset) - 1, _READ_EACH).astype(int)):
            dataset.read(int(index))
    data_hash = hashlib.sha256(f"{train.fingerprint()} {val.fingerprint()}".encode()).hexdigest()[:16]
    return DataSummary(len(train), len(val), train.class_names, data_hash)


def _check_disjoint(train: SegmentationDataset, val: SegmentationDataset) -> None:
    both = sorted(set(train.ids) & set(val.ids))
    if both:
        raise DataError(
            f"{train.root}: {len(both)} images of val split '{val.split}' are also in train split '{train.split}' "
            f"({few(both)}); a score needs images not learned from: "
            "set data.train_split or data.val_split to another list"
        )
