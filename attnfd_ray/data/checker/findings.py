"""Findings about the samples of splits: copies, similar images, shared films, absent classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attnfd_ray.data.checker.inspection import Facts
from attnfd_ray.data.datasets.base import SegmentationDataset
from attnfd_ray.data.files import few

_MAX_DIFFERENT_BITS = 4
"""Bits of 64 in which similar images may differ. Films of different streets differ in 10+."""


@dataclass(frozen=True, eq=False)
class Split:
    """A split that could be opened, its role (train, val, test), and the facts of samples read."""

    role: str
    dataset: SegmentationDataset
    facts: Facts

    def __str__(self) -> str:
        return f"{self.role} split '{self.dataset.split}'"

    def id_of(self, row: int) -> str:
        """Return the id of the sample in a row of the facts."""
        return self.dataset.samples[int(self.facts["sample"][row])].id

    def image_of(self, row: int) -> Path:
        """Return the image file of the sample in a row of the facts."""
        return self.dataset.paths(int(self.facts["sample"][row]))[0]


def unpublished_count(split: Split) -> Iterator[str]:
    """Yield a line if the number of images is not the published one."""
    published = split.dataset.published.get(split.dataset.split)
    if published not in (None, len(split.dataset)):
        yield f"{split} has {len(split.dataset)} images; published are {published}"


def absent_classes(split: Split) -> Iterator[str]:
    """Yield a line if classes have no pixel in the samples that were read."""
    counts = split.facts["pixels"].sum(axis=0, dtype=np.int64).tolist()
    names = split.dataset.class_names
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if absent:
        yield f"{split} has no pixel of {len(absent)} of {len(names)} classes: {few(absent, 40)}"


def copies_inside(split: Split) -> Iterator[str]:
    """Yield a line for every image that equals another one of its split in all pixels."""
    first_row: dict[bytes, int] = {}
    for row, content in enumerate(split.facts["content"].tolist()):
        first = first_row.setdefault(content, row)
        image = split.image_of(row)
        twin = split.image_of(first)
        if image != twin:
            yield f"{image}: the same image as {twin}, both in {split}: take one off"


def copies_between(known: Split, scored: Split) -> Iterator[str]:
    """Yield a line for every scored image that equals a known one in all pixels.

    The same file in both splits is reported by `shared_images`.
    """
    known_rows = {content: row for row, content in enumerate(known.facts["content"].tolist())}
    for row, content in enumerate(scored.facts["content"].tolist()):
        if content not in known_rows:
            continue
        image = scored.image_of(row)
        twin = known.image_of(known_rows[content])
        if image != twin:
            yield (
                f"{image}: the same image as {twin} of {known}; a score needs images not learned "
                "from: take one off its list"
            )


def similar_images(known: Split, scored: Split) -> Iterator[str]:
    """Yield a line if scored images look almost like known ones without being equal to them."""
    if not len(known.facts):
        return
    looks_K = known.facts["looks"].copy()  # contiguous in memory
    known_contents = set(known.facts["content"].tolist())
    scored_contents = scored.facts["content"].tolist()
    pairs = []
    for row, looks in enumerate(scored.facts["looks"]):
        if scored_contents[row] in known_contents:
            continue
        different_bits_K = np.bitwise_count(looks_K ^ looks)
        nearest = int(different_bits_K.argmin())
        if different_bits_K[nearest] <= _MAX_DIFFERENT_BITS:
            pairs.append(f"{scored.id_of(row)} like {known.id_of(nearest)}")
    if pairs:
        yield (
            f"{len(pairs)} images of {scored} look almost like one of {known}; a score on them is "
            f"optimistic ({few(pairs)})"
        )


def shared_images(known: Split, scored: Split) -> Iterator[str]:
    """Yield a line if image files are in both splits."""
    known_images = {sample.image for sample in known.dataset.samples}
    shared = sorted(sample.id for sample in scored.dataset.samples if sample.image in known_images)
    if shared:
        yield (
            f"{scored.dataset.root}: {len(shared)} images of {scored} are also in {known} "
            f"({few(shared)}); a score needs images not learned from: set "
            f"data.{known.role}_split or data.{scored.role}_split to another list"
        )


def shared_recordings(known: Split, scored: Split) -> Iterator[str]:
    """Yield a line if scored images are frames of a film that known images are frames of too."""
    known_films = {known.dataset.recording(index) for index in range(len(known.dataset))}
    scored_films = [scored.dataset.recording(index) for index in range(len(scored.dataset))]
    films = [film for film in scored_films if film is not None and film in known_films]
    if films:
        yield (
            f"{len(films)} of {len(scored_films)} images of {scored} are frames of films that "
            f"{known} has frames of too ({few(sorted(set(films)))}): neighbours in time, so a "
            "score on them is optimistic"
        )
