"""Checks a dataset before anything expensive starts, by a few files of it or by all of them.

Every fault found is in the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from attnfd_ray import registry
from attnfd_ray.config.schema import DataSettings
from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.checker import findings
from attnfd_ray.data.checker.findings import Split
from attnfd_ray.data.checker.inspection import OnRead, SampleAt, inspect, no_facts
from attnfd_ray.data.checker.report import ClassShare, DataReport, SplitReport
from attnfd_ray.data.datasets.base import data_hash, refresh
from attnfd_ray.data.storage.image_cache import checked_limit_bytes
from attnfd_ray.errors import DataError, one_line

_NUM_QUICK = 4
"""Samples of each split that a quick check reads: the first, the last and some between."""
_NUM_EXAMPLES = 2


@dataclass(frozen=True)
class DataSummary:
    """The data of a run: images per split, classes, and a hash of the ids and file sizes."""

    num_train: int
    num_val: int
    class_names: tuple[str, ...]
    data_hash: str

    @property
    def num_classes(self) -> int:
        """The number of classes of a network."""
        return len(self.class_names)


def quick_check(data: DataSettings) -> DataSummary:
    """Open the splits and read a few images of each. DataError if a run would fail later."""
    checked_limit_bytes(data)
    report = check_data(data)
    if report.errors:
        raise DataError(report.errors)
    assert report.data_hash is not None, "no error, so no file is missing"
    train, val = report.splits[:2]
    return DataSummary(train.num_images, val.num_images, report.class_names, report.data_hash)


def check_data(
    data: DataSettings,
    *,
    full: bool = False,
    on_read: OnRead = lambda done, total: None,
) -> DataReport:
    """Return the report on the train, val and test splits, by a few files of each or by all.

    A `full` check also compares the images with each other. ConfigError if there is no such
    dataset; RunFailed if a reading process dies.
    """
    report, _ = check_splits(data, full=full, on_read=on_read)
    return report


def check_splits(
    data: DataSettings,
    *,
    full: bool,
    on_read: OnRead,
) -> tuple[DataReport, list[Split]]:
    """Return the report of `check_data`, and the splits that were opened for it."""
    splits, errors = _opened(data)
    for split in splits:
        errors += split.dataset.problems()
    hash_of_splits = None
    if not errors:
        hash_of_splits = _data_hash(splits)
    for known, scored in combinations(splits, 2):
        errors += findings.shared_images(known, scored)
    errors += _bad_pad_label(data, splits)
    splits, unreadable = _read(splits, full=full, on_read=on_read)
    errors += unreadable
    if full:
        for known, scored in combinations(splits, 2):
            errors += findings.copies_between(known, scored)
    class_names: tuple[str, ...] = ()
    if splits:
        class_names = splits[0].dataset.class_names
    report = DataReport(
        dataset=data.name,
        root=data.root,
        full=full,
        class_names=class_names,
        splits=tuple(map(_report, splits)),
        notes=tuple(map(one_line, _notes(splits, full=full))),
        warnings=_distinct_lines(_warnings(splits, full=full)),
        errors=_distinct_lines(errors),
        data_hash=hash_of_splits,
    )
    return report, splits


def _distinct_lines(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the texts, one line each, once: each split reports a fault of the root."""
    return tuple(dict.fromkeys(map(one_line, texts)))


def _notes(splits: Sequence[Split], *, full: bool) -> list[str]:
    notes: list[str] = []
    for split in splits:
        notes += findings.unpublished_count(split)
    for known, scored in combinations(splits, 2):
        notes += findings.shared_recordings(known, scored)
        if full:
            notes += findings.similar_images(known, scored)
    return notes


def _warnings(splits: Sequence[Split], *, full: bool) -> list[str]:
    warnings: list[str] = []
    for split in splits:
        warnings += split.dataset.warnings()
    for split in splits:
        if full and len(split.facts):
            warnings += findings.absent_classes(split)
            warnings += findings.copies_inside(split)
    return warnings


def _opened(data: DataSettings) -> tuple[list[Split], list[str]]:
    """Return the splits that can be opened, train first and test last, and the others' errors."""
    splits: list[Split] = []
    errors: list[str] = []
    dataset_class = registry.load("dataset", data.name)
    refresh(data)
    names = {"train": data.train_split, "val": data.val_split, "test": data.test_split}
    for role, name in names.items():
        if not name:
            continue
        try:
            dataset = dataset_class(data.root, name)
        except DataError as error:
            errors += error.problems
        else:
            splits.append(Split(role, dataset, no_facts(dataset.num_classes)))
    return splits, errors


def _read(
    splits: Sequence[Split],
    *,
    full: bool,
    on_read: OnRead,
) -> tuple[list[Split], list[str]]:
    """Return the splits with the facts of the samples read, and the errors of the others."""
    samples = []
    for number, split in enumerate(splits):
        indices = split.dataset.present()
        if not full:
            indices = _spread(indices)
        samples += [SampleAt(number, index) for index in indices]
    facts, problems = inspect([split.dataset for split in splits], samples, on_read)
    with_facts = [replace(split, facts=found) for split, found in zip(splits, facts, strict=True)]
    return with_facts, problems


def _spread(indices: Sequence[int]) -> list[int]:
    """Return a few of the indices: the first, the last and some between."""
    if not indices:
        return []
    positions = np.unique(np.linspace(0, len(indices) - 1, _NUM_QUICK).astype(int))
    return [indices[position] for position in positions.tolist()]


def _data_hash(splits: Sequence[Split]) -> str:
    """Return the hash of the splits that a run trains and selects on: all but its test split."""
    return data_hash([split.dataset for split in splits if split.role != "test"])


def _bad_pad_label(data: DataSettings, splits: Sequence[Split]) -> list[str]:
    if not splits or data.pad_label == IGNORED:
        return []
    num_classes = splits[0].dataset.num_classes
    if data.pad_label < num_classes:
        return []
    line = (
        f"data.pad_label {data.pad_label}: {data.name} has no such class; needed is "
        f"0..{num_classes - 1}, or {IGNORED} for pixels that do not count"
    )
    return [line]


def _report(split: Split) -> SplitReport:
    pixels_NC = split.facts["pixels"]
    num_ignored = int(split.facts["num_ignored"].sum())
    total = max(1, int(pixels_NC.sum()) + num_ignored)
    classes = []
    for name, pixels_N in zip(split.dataset.class_names, pixels_NC.T, strict=True):
        counts_N = pixels_N.astype(np.int64)
        most = np.argsort(-counts_N, kind="stable")[:_NUM_EXAMPLES]
        examples = [split.id_of(int(row)) for row in most if counts_N[row]]
        share = float(counts_N.sum() / total)
        classes.append(ClassShare(name, share, int((counts_N > 0).sum()), tuple(examples)))
    return SplitReport(
        role=split.role,
        split=split.dataset.split,
        num_images=len(split.dataset),
        num_published=split.dataset.published.get(split.dataset.split),
        num_read=len(split.facts),
        ignored_share=num_ignored / total,
        classes=tuple(classes),
    )
