"""Looks at a dataset before anything expensive starts: a few files of it, or all; tells all that is
wrong at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations

import numpy as np

from attnfd_ray import registry
from attnfd_ray.config.schema import DataSettings
from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.checker import findings
from attnfd_ray.data.checker.findings import Split
from attnfd_ray.data.checker.inspection import OnRead, SampleAt, inspect, no_facts
from attnfd_ray.data.checker.records import ClassShare, DataReport, SplitReport
from attnfd_ray.data.datasets.base import data_hash, refresh
from attnfd_ray.data.files import few
from attnfd_ray.data.storage.image_cache import checked_limit_bytes
from attnfd_ray.errors import DataError, one_line

_READ_EACH = 4
"""Images and masks of each split that are read: the first, the last and some between."""
_EXAMPLES_EACH = 2


@dataclass(frozen=True)
class DataSummary:
    """What a run works on: images of each split, the classes, and a hash of both splits' ids and
    file sizes.
    """

    num_train: int
    num_val: int
    class_names: tuple[str, ...]
    data_hash: str

    @property
    def num_classes(self) -> int:
        """How many classes a network has to tell apart."""
        return len(self.class_names)


def quick_check(data: DataSettings) -> DataSummary:
    """Open the splits and read a few images of each; DataError for whatever would stop a run
    later.
    """
    checked_limit_bytes(data)
    report = check_data(data)
    if report.errors:
        raise DataError(report.errors)
    assert report.data_hash is not None, "no error, so no file is missing"
    train, val = report.splits[:2]
    return DataSummary(train.num_images, val.num_images, report.class_names, report.data_hash)


def check_data(
    data: DataSettings, *, full: bool = False, on_read: OnRead = lambda done, total: None
) -> DataReport:
    """Return what train, val and test split hold and all that is wrong, as told by a few files of
    each or by every one.

    A `full` check also compares the images with each other. ConfigError if there is no such
    dataset; RunFailed where a reading process dies.
    """
    return look_at(data, full=full, on_read=on_read)[0]


def look_at(data: DataSettings, *, full: bool, on_read: OnRead) -> tuple[DataReport, list[Split]]:
    """Return what `check_data` does, and the splits that were opened for it."""
    splits, errors = _opened(data)
    errors += chain.from_iterable(split.dataset.problems() for split in splits)
    hashed = None if errors else _data_hash(splits)
    errors += [
        *chain.from_iterable(_in_both(*pair) for pair in combinations(splits, 2)),
        *_bad_padding(data, splits),
    ]
    splits, unreadable = _read(splits, full=full, on_read=on_read)
    errors += unreadable
    notes = [line for split in splits for line in findings.unlike_published(split)]
    warnings = [line for split in splits for line in split.dataset.warnings()]
    if full:
        for split in splits:
            warnings += (
                [*findings.absent_classes(split), *findings.copies_inside(split)]
                if len(split.facts)
                else []
            )
    for pair in combinations(splits, 2):
        notes += findings.shared_recordings(*pair)
        if full:
            notes += findings.almost_alike(*pair)
            errors += findings.copies_between(*pair)
    report = DataReport(
        dataset=data.name,
        root=data.root,
        full=full,
        class_names=splits[0].dataset.class_names if splits else (),
        splits=tuple(map(_report, splits)),
        notes=tuple(map(one_line, notes)),
        # what ails the root is said by each split
        warnings=tuple(dict.fromkeys(map(one_line, warnings))),
        errors=tuple(dict.fromkeys(map(one_line, errors))),
        data_hash=hashed,
    )
    return report, splits


def _opened(data: DataSettings) -> tuple[list[Split], list[str]]:
    """Return the splits that can be opened, train first and test last, and why the others
    cannot.
    """
    splits, errors = [], []
    make = registry.load("dataset", data.name)
    refresh(data)
    for role, name in (
        ("train", data.train_split),
        ("val", data.val_split),
        ("test", data.test_split),
    ):
        try:
            opened = [make(data.root, name)] if name else []
        except DataError as error:
            errors += error.problems
        else:
            splits += [Split(role, dataset, no_facts(dataset.num_classes)) for dataset in opened]
    return splits, errors


def _read(splits: Sequence[Split], *, full: bool, on_read: OnRead) -> tuple[list[Split], list[str]]:
    """Return the splits with the facts of the samples read, and what is wrong with those that
    cannot be.
    """
    samples = []
    for number, split in enumerate(splits):
        present = split.dataset.present()
        chosen = present if full or not present else [present[i] for i in _spread(len(present))]
        samples += [SampleAt(number, index) for index in chosen]
    facts, problems = inspect([split.dataset for split in splits], samples, on_read)
    return [
        replace(split, facts=found) for split, found in zip(splits, facts, strict=True)
    ], problems


def _spread(count: int) -> list[int]:
    indices: list[int] = np.unique(np.linspace(0, count - 1, _READ_EACH).astype(int)).tolist()
    return indices


def _data_hash(splits: Sequence[Split]) -> str:
    """Return the hash of what a run learns and chooses from: its test split changes neither."""
    return data_hash([split.dataset for split in splits if split.role != "test"])


def _in_both(known: Split, scored: Split) -> list[str]:
    learned = {sample.image for sample in known.dataset.samples}
    both = sorted(sample.id for sample in scored.dataset.samples if sample.image in learned)
    line = (
        f"{scored.dataset.root}: {len(both)} images of {scored} are also in {known} "
        f"({few(both)}); a score "
        f"needs images not learned from: set data.{known.role}_split or data.{scored.role}_split "
        "to another list"
    )
    return [line] if both else []


def _bad_padding(data: DataSettings, splits: Sequence[Split]) -> list[str]:
    num_classes = splits[0].dataset.num_classes if splits else IGNORED
    line = (
        f"data.pad_label {data.pad_label}: {data.name} has no such class; needed is "
        f"0..{num_classes - 1}, or "
        f"{IGNORED} for pixels that do not count"
    )
    return [] if data.pad_label < num_classes or data.pad_label == IGNORED else [line]


def _report(split: Split) -> SplitReport:
    names = split.dataset.class_names
    pixels_NC = split.facts["pixels"]
    num_ignored = int(split.facts["num_ignored"].sum())
    total = max(1, int(pixels_NC.sum()) + num_ignored)
    classes = []
    for name, pixels_N in zip(names, pixels_NC.T.astype(np.int64), strict=True):
        most = [
            int(row)
            for row in np.argsort(-pixels_N, kind="stable")[:_EXAMPLES_EACH]
            if pixels_N[row]
        ]
        examples = tuple(map(split.id_of, most))
        classes.append(
            ClassShare(name, float(pixels_N.sum() / total), int((pixels_N > 0).sum()), examples)
        )
    return SplitReport(
        role=split.role,
        split=split.dataset.split,
        num_images=len(split.dataset),
        num_published=split.dataset.published.get(split.dataset.split),
        num_read=len(split.facts),
        ignored_share=num_ignored / total,
        classes=tuple(classes),
    )
