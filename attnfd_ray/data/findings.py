"""What the samples of splits say together: copies, images almost alike, films in both, classes without pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attnfd_ray.data.dataset import SegmentationDataset
from attnfd_ray.data.files import few
from attnfd_ray.data.inspection import SampleFacts

_ALIKE_BITS = 4
"""Bits of 64 that may differ between images almost alike. Films of other streets in CamVid differ in 10 and more."""


@dataclass(frozen=True)
class Split:
    """A split that could be opened, what it is for (train, val or test), and the facts of the samples read."""

    role: str
    dataset: SegmentationDataset
    facts: Sequence[SampleFacts] = ()

    def __str__(self) -> str:
        return f"{self.role} split '{self.dataset.split}'"

    def id_of(self, found: SampleFacts) -> str:
        """Return the id of a sample."""
        return self.dataset.samples[found.at.sample].id

    def image_of(self, found: SampleFacts) -> Path:
        """Return the file of a sample's image."""
        return self.dataset.paths(found.at.sample)[0]


def unlike_published(split: Split) -> Iterator[str]:
    """Yield a line if there are other than the published number of images."""
    published = split.dataset.published.get(split.dataset.split)
    if published not in (None, len(split.dataset)):
        yield f"{split} has {len(split.dataset)} images; published are {published}"


def absent_classes(split: Split) -> Iterator[str]:
    """Yield a line if classes have no pixel in the samples that were read."""
    seen = np.array([found.pixels for found in split.facts]).sum(axis=0)
    absent = [name for name, count in zip(split.dataset.class_names, seen, strict=True) if not count]
    if absent:
        yield f"{split} has no pixel of {len(absent)} of {len(seen)} classes: {few(absent, 40)}"


def copies_inside(split: Split) -> Iterator[str]:
    """Yield a line for every image that is another one of its split in all pixels."""
    first: dict[bytes, SampleFacts] = {}
    for found in split.facts:
        before = first.setdefault(found.content, found)
        if split.image_of(before) != split.image_of(found):
            yield f"{split.image_of(found)}: the same image as {split.image_of(before)}, both in {split}: take one off"


def copies_between(known: Split, scored: Split) -> Iterator[str]:
    """Yield a line for every scored image that is a known one in all pixels, but another file."""
    known_by_content = {found.content: found for found in known.facts}
    for found in scored.facts:
        twin = known_by_content.get(found.content)
        if twin is not None and scored.image_of(found) != known.image_of(twin):
            yield (
                f"{scored.image_of(found)}: the same image as {known.image_of(twin)} of {known}; a score needs images "
                "not learned from: take one off its list"
            )


def almost_alike(known: Split, scored: Split) -> Iterator[str]:
    """Yield a line if scored images look almost like known ones and are not the very same."""
    if not known.facts:
        return
    looks_K = np.array([found.looks for found in known.facts], dtype=np.uint64)
    copies = {found.content for found in known.facts}
    pairs = []
    for found in (found for found in scored.facts if found.content not in copies):
        differing_K = np.bitwise_count(looks_K ^ np.uint64(found.looks))
        nearest = int(differing_K.argmin())
        if differing_K[nearest] <= _ALIKE_BITS:
            pairs.append(f"{scored.id_of(found)} like {known.id_of(known.facts[nearest])}")
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
            f"{count} of {len(shared)} images of {scored} are frames of films that {known} has frames of too "
            f"({few(films)}): neighbours in time, so a score on them flatters"
        )
