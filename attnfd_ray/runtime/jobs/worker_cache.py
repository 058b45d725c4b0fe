"""What a worker process keeps from job to job: datasets, their readers and the frozen teacher.

Knows torch, no Ray.
"""

from __future__ import annotations

import socket
from pathlib import Path

import torch

from attnfd_ray.config.overrides import digest
from attnfd_ray.config.schema import DataSettings, ExperimentSettings
from attnfd_ray.data.datasets.base import SegmentationDataset, data_hash, open_dataset, refresh
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.errors import DataError
from attnfd_ray.models import build_model
from attnfd_ray.models.files import load_weights

Splits = tuple[SegmentationDataset, SegmentationDataset]  # train, val


class WorkerCache:
    """Opens datasets, starts readers and loads teachers once, for all jobs of a worker."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._datasets: dict[str, SegmentationDataset] = {}
        self._hashes: dict[Splits, str] = {}
        self._readers = ReaderPool([])
        self._teacher: tuple[str, FrozenTeacher] | None = None

    def dataset(self, data: DataSettings, split: str) -> SegmentationDataset:
        """Return a split, opened once."""
        key = digest([data.name, data.root, split, data.cache, data.cache_gib])
        if key not in self._datasets:
            self._datasets[key] = open_dataset(data, split=split)
        return self._datasets[key]

    def checked_splits(self, data: DataSettings, expected_hash: str | None) -> Splits:
        """Return the train and val split.

        Raises DataError unless their hash is `expected_hash`, which the driver computed on its
        node; None: any.
        """
        splits, found = self._hashed_splits(data)
        if expected_hash not in (None, found):
            # this node's copy of a URI may be older, or files have changed since they were opened
            self._close_datasets()
            refresh(data)
            splits, found = self._hashed_splits(data)
        if expected_hash not in (None, found):
            raise DataError(
                f"{data.root} on {socket.gethostname()}: has other files than on the node where "
                f"the command was started (data_hash {found}, there {expected_hash}); needed is "
                "the same dataset on every node"
            )
        return splits

    def _hashed_splits(self, data: DataSettings) -> tuple[Splits, str]:
        splits = (self.dataset(data, data.train_split), self.dataset(data, data.val_split))
        if splits not in self._hashes:  # takes up to a second for a large set
            self._hashes[splits] = data_hash(splits)
        return splits, self._hashes[splits]

    def readers(self, data: DataSettings, *datasets: SegmentationDataset) -> ReaderPool:
        """Return the readers of the datasets; their processes are kept from job to job."""
        known = self._readers
        if known.num_processes != data.loader_workers or not set(datasets) <= set(known.datasets):
            known.close()
            self._readers = ReaderPool(datasets, data.loader_workers)
        return self._readers

    def teacher(self, settings: ExperimentSettings, file: str, num_classes: int) -> FrozenTeacher:
        """Return the frozen teacher with the weights of a file, loaded once."""
        assert settings.teacher is not None
        architecture = settings.teacher.model_copy(update={"pretrained": "none"})
        key = digest([file, architecture.model_dump(mode="json"), num_classes])
        if self._teacher is None or self._teacher[0] != key:
            network = build_model(architecture, num_classes=num_classes)
            load_weights(network, Path(file), num_classes=num_classes)
            self._teacher = (key, FrozenTeacher(network).to(self._device))
        return self._teacher[1]

    def close(self) -> None:
        """End the reader processes and close the datasets."""
        self._close_datasets()

    def _close_datasets(self) -> None:
        self._readers.close()
        for dataset in self._datasets.values():
            dataset.close()
        self._datasets.clear()
        self._hashes.clear()
