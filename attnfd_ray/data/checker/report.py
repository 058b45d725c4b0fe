"""The report of a dataset check: plain records. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassShare:
    """A class in a split: its share of all pixels (0..1) and the number of images it occurs in.

    `examples` are the ids of the images with the most of it.
    """

    name: str
    pixel_share: float
    num_images: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class SplitReport:
    """A split: its images, how many are published (None: unknown), and how many were read.

    `role` is train, val or test, `split` the name of the list. Shares are fractions 0..1 of all
    pixels read.
    """

    role: str
    split: str
    num_images: int
    num_published: int | None
    num_read: int
    ignored_share: float
    classes: tuple[ClassShare, ...]

    @property
    def num_classes_seen(self) -> int:
        """How many classes have a pixel in the images that were read."""
        return sum(found.num_images > 0 for found in self.classes)


@dataclass(frozen=True)
class DataReport:
    """The splits that could be opened, and the findings about them, one line each.

    `errors` stop a run or make its score worthless, `warnings` are likely mistakes, `notes` are
    good to know. `data_hash` covers ids and file sizes of train and val; None while files are
    missing. `full`: every file was read.
    """

    dataset: str
    root: str
    full: bool
    class_names: tuple[str, ...]
    splits: tuple[SplitReport, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    errors: tuple[str, ...]
    data_hash: str | None
