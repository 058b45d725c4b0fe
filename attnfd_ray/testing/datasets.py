"""The contract of segmentation datasets, as tests that run on any dataset."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from attnfd_ray import registry
from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.datasets.base import SegmentationDataset
from attnfd_ray.errors import DataError


class DatasetContract:
    """Checks that a class keeps the contract of `SegmentationDataset` (data.datasets.base).

    Derive a test class and set its attributes:

    - `dataset`: the name in settings, a registered one or `package.module:Class`.
    - `root`: a directory with a small dataset of that kind.
    - `split`: one of its splits.

        class TestMyDataset(DatasetContract):
            dataset = "mypackage.data:MyDataset"
            root = Path(__file__).parent / "three_images"
    """

    dataset: str
    root: str | Path
    split: str = "train"
    no_such_split: ClassVar[str] = "no_such_split"

    def open(self, root: str | Path | None = None, split: str | None = None) -> SegmentationDataset:
        """Return the dataset, by default with its own root and split."""
        kind = registry.load("dataset", self.dataset)
        dataset = kind(root or self.root, split or self.split)
        assert isinstance(dataset, SegmentationDataset), "derive it from SegmentationDataset"
        return dataset

    def test_it_finds_no_problem_in_a_complete_dataset(self) -> None:
        """All files are there, and every id is there once."""
        dataset = self.open()
        assert dataset.problems() == []
        assert dataset.ids, f"split '{self.split}' has no images"
        assert len(set(dataset.ids)) == len(dataset.ids), "an id is there twice"
        assert len(dataset) == len(dataset.ids)
        assert dataset.present() == list(range(len(dataset)))
        for index in range(len(dataset)):
            for path in dataset.paths(index):
                assert path.is_file(), path

    def test_every_class_has_a_name_and_a_colour_of_its_own(self) -> None:
        """Reports and overlays tell classes apart by them."""
        dataset = self.open()
        names = set(dataset.class_names)
        colours = set(dataset.palette)
        assert len(names) == len(dataset.class_names), "two classes have the same name"
        assert len(colours) == len(dataset.palette), "two classes have the same colour"
        assert len(names) == len(colours) == dataset.num_classes

    def test_every_sample_is_rgb_bytes_and_class_ids(self) -> None:
        """Images are uint8 [3, H, W], labels are uint8 [H, W]: class ids or 255 (ignored)."""
        dataset = self.open()
        for index, name in enumerate(dataset.ids):
            image_CHW, label_HW = dataset.read(index)
            assert image_CHW.dtype == label_HW.dtype == torch.uint8, name
            assert image_CHW.shape == (3, *label_HW.shape), name
            # channels are last in memory, because resizing is fastest then
            assert image_CHW.permute(1, 2, 0).is_contiguous(), name
            is_valid = (label_HW < dataset.num_classes) | (label_HW == IGNORED)
            wrong = set(label_HW[~is_valid].tolist())
            assert not wrong, f"{name}: labels {sorted(wrong)} are no class"

    def test_images_are_those_of_their_files(self) -> None:
        """Nothing is resized or converted but to RGB."""
        dataset = self.open()
        for index in range(len(dataset)):
            image_path, _ = dataset.paths(index)
            image_CHW, _ = dataset.read(index)
            with Image.open(image_path) as image:
                expected_HWC = np.asarray(image.convert("RGB"))
            np.testing.assert_array_equal(image_CHW.permute(1, 2, 0).numpy(), expected_HWC)

    def test_labels_are_the_masks_values_by_the_label_map(self) -> None:
        """Values of a mask are class ids and 255, unless `label_map` gives them a meaning."""
        dataset = self.open()
        meanings = dataset.label_map or {value: value for value in range(256)}
        for index, sample in enumerate(dataset.samples):
            _, label_HW = dataset.read(index)
            values_HW = dataset.read_values(sample)
            expected_HW = np.vectorize(meanings.__getitem__)(values_HW)
            np.testing.assert_array_equal(label_HW.numpy(), expected_HW)

    def test_reading_twice_gives_the_same(self) -> None:
        """Any randomness belongs to the transforms."""
        dataset = self.open()
        again = self.open()
        assert dataset.ids == again.ids
        for index in range(len(dataset)):
            image_CHW, label_HW = dataset.read(index)
            same_image_CHW, same_label_HW = again.read(index)
            assert torch.equal(image_CHW, same_image_CHW), f"image {index} differs"
            assert torch.equal(label_HW, same_label_HW), f"mask {index} differs"

    def test_its_fingerprint_is_sixteen_hex_digits_that_stay(self) -> None:
        """Trials on the same data are compared, trials on other data are not."""
        fingerprint = self.open().fingerprint()
        assert len(fingerprint) == 16
        int(fingerprint, 16)
        assert self.open().fingerprint() == fingerprint

    def test_a_root_or_a_split_that_does_not_exist_is_a_data_error(self) -> None:
        """A user's mistake is one line without a traceback."""
        missing = Path(self.root) / "no" / "such" / "directory"
        assert _problems(self, root=missing), f"{missing} is accepted"
        assert _problems(self, split=self.no_such_split), f"{self.no_such_split} is accepted"


def _problems(
    contract: DatasetContract, *, root: Path | None = None, split: str | None = None
) -> list[str]:
    """Return the problems of a dataset, found when it is opened or asked."""
    try:
        return contract.open(root=root, split=split).problems()
    except DataError as error:
        return error.problems
