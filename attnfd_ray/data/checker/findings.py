"""What the samples of splits say together: copies, images almost alike, films in both, classes
without pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attnfd_ray.data.checker.inspection import Facts
from attnfd_ray.data.datasets.base import SegmentationDataset
from attnfd_ray.data.files import few

_ALIKE_BITS = 4
"""Bits of 64 that may differ between images almost alike. Films of other streets in CamVid differ in 10 and more."""


@dataclass(frozen=True, eq=False)
class Split:
    """A split that could be opened, what it is for (train, val or test), and the facts of the
    samples read.
    """

    role: str
    dataset: SegmentationDataset
    facts: Facts

    def __str__(self) -> str:
        return f"{self.role} split '{self.dataset.split}'"

    def id_of(self, row: int) -> str:
        """Return the id of the sample that a row of the facts is of."""
        return self.dataset.samples[int(self.facts["sample"][row])].id

    def image_of(self, row: int) -> Path:
        """Return the file of that sample's image."""
        return self.dataset.paths(int(self.facts["sample"][row]))[0]


def unlike_published(split: Split) -> Iterator[str]:
    """Yield a line if there are other than the published number of images."""
    published = split.dataset.published.get(split.dataset.split)
    if published not in (None, len(split.dataset)):
        yield f"{split} has {len(split.dataset)} images; published are {published}"


def absent_classes(split: Split) -> Iterator[str]:
    """Yield a line if classes have no pixel in the samples that were read."""
    seen = split.facts["pixels"].sum(axis=0, dtype=np.int64).tolist()
    absent = [
        name for name, count in zip(split.dataset.class_names, seen, strict=True) if not count
    ]
    if absent:
        yield f"{split} has no pixel of {len(absent)} of {len(seen)} classes: {few(absent, 40)}"


def copies_inside(split: Split) -> Iterator[str]:
    """Yield a line for every image that is another one of its split in all pixels."""
    first: dict[bytes, int] = {}
    for row, content in enumerate(split.facts["content"].tolist()):
        before = first.setdefault(content, row)
        if before != row and split.image_of(before) != split.image_of(row):
            yield f"{split.image_of(row)}: the same image as {split.image_of(before)}, both in {split}: take one off"


def copies_between(known: Split, scored: Split) -> Iterator[str]:
    """Yield a line for every scored image that is a known one in all pixels, but another file."""
    known_by_content = {content: row for row, content in enumerate(known.facts["content"].tolist())}
    for row, content in enumerate(scored.facts["content"].tolist()):
        twin = known_by_content.get(content)
        if twin is not None and scored.image_of(row) != known.image_of(twin):
            yield (
                f"{scored.image_of(row)}: the same image as {known.image_of(twin)} of {known}; a "
                "score needs images "
                "not learned from: take one off its list"
            )


def almost_alike(known: Split, scored: Split) -> Iterator[str]:
    """Yield a line if scored images look almost like known ones and are not the very same."""
    if not len(known.facts):
        return
    looks_K = known.facts["looks"].copy()  # side by side in memory
    copies = set(known.facts["content"].tolist())
    pairs = []
    for row, (content, looks) in enumerate(
        zip(scored.facts["content"].tolist(), scored.facts["looks"], strict=True)
    ):
        if content in copies:
            continue
        differing_K = np.bitwise_count(looks_K ^ looks)
        nearest = int(differing_K.argmin())
        if differing_K[nearest] <= _ALIKE_BITS:
            pairs.append(f"{scored.id_of(row)} like {known.id_of(nearest)}")
    if pairs:
        count = len(pairs)
        yield f"{count} images of {scored} look almost like one of {known}; a score on them flatters ({few(pairs)})"


def shared_recordings(known: Split, scored: Split) -> Iterator[str]:
    """Yield a line if scored images are frames of films that known ones are frames of too."""
    learned = {known.dataset.recording(index) for index in range(len(known.dataset))} - {None}
    shared = [scored.dataset.recording(index) for index in range(len(scored.dataset))]
    films = sorted({film for film in shared if film is not None and film in learned})
    if films:
        count = sum(film in films for film in shared)
        yield (
            f"{count} of {len(shared)} images of {scored} are frames of films that {known} has "
            "frames of too "
            f"({few(films)}): neighbours in time, so a score on them flatters"
        )
