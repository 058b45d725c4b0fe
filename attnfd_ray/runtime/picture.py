"""Draws what the networks of an experiment predict, beside images and labels of its val split.

No ray.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from attnfd_ray.analysis import numbers
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.checker.comparison import ComparisonRow, most_classes, side_by_side
from attnfd_ray.data.checker.overlays import encoded
from attnfd_ray.data.datasets.base import SegmentationDataset, data_hash, open_dataset
from attnfd_ray.data.loading.transforms import eval_transform, normalised
from attnfd_ray.errors import DataError, StoreError
from attnfd_ray.runtime.stored_networks import NAMES, NotAvailable, StoredNetwork, StoredNetworks
from attnfd_ray.store.store import Store
from attnfd_ray.train.inference import class_scores

_MAX_CANDIDATES = 100  # images whose labels are read to choose among


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG, the networks on it by the report's names, and a line for each that is missing."""

    png: bytes
    num_images: int
    shown: list[str]
    missing: list[str]


def draw(
    store: Store,
    *,
    experiment: str | None = None,
    num_images: int,
    teacher_file: Path | None = None,
    data_root: str | None = None,
    own_code: bool = False,
) -> Picture:
    """Draw images, labels, and the predictions of baseline, best config and teacher.

    `experiment` is the latest one if None. `teacher_file` is a teacher that was not trained in the
    store, `data_root` the dataset if it was moved. `own_code` allows the import of
    `package.module:Attribute` that the store names. Raises StoreError if there is nothing to draw,
    and DataError and CheckpointError for files that do not fit.
    """
    shown = summarise(store, experiment=experiment).shown
    if shown is None:
        raise StoreError(
            f"{store.name}: no trials yet; `attnfd-ray train` or `tune` with this store adds some"
        )
    stored = StoredNetworks(store, shown.protocols[0], own_code=own_code)
    data = stored.section("data", DataSettings).model_copy(update={"cache": "none"})
    if data_root:
        data = data.model_copy(update={"root": data_root})
    dataset = _val_split(data, stored)
    networks, missing = _load_all(stored, dataset.num_classes, teacher_file)
    if not networks:
        raise StoreError(f"{store.name}: there are no weights to draw with ({'; '.join(missing)})")
    indices = _choose(dataset, data, num_images)
    picture = side_by_side(
        [_compare(dataset, index, networks, data) for index in indices],
        [["image"], ["label"], *(_title(network) for network in networks)],
        dataset.class_names,
        dataset.palette,
        note=(
            f"{len(indices)} of the {len(dataset)} images of split '{data.val_split}', chosen by "
            "their labels alone. mIoU is of the whole split."
        ),
    )
    return Picture(
        png=encoded(picture, "PNG"),
        num_images=len(indices),
        shown=[network.name for network in networks],
        missing=missing,
    )


def _load_all(
    stored: StoredNetworks, num_classes: int, teacher_file: Path | None
) -> tuple[list[StoredNetwork], list[str]]:
    """Return the networks that can be loaded, and a line for each that cannot."""
    networks = []
    missing = []
    for name in NAMES:
        try:
            networks.append(stored.load(name, num_classes=num_classes, teacher_file=teacher_file))
        except NotAvailable as error:
            missing.append(f"{name}: {error}")
    return networks, missing


def _val_split(data: DataSettings, stored: StoredNetworks) -> SegmentationDataset:
    """Return the split that the networks were scored on. Raises DataError if files changed."""
    train_set = open_dataset(data, split=data.train_split)
    val_set = open_dataset(data, split=data.val_split)
    found = data_hash((train_set, val_set))
    expected = stored.row["data_hash"]
    if expected not in (None, found):
        raise DataError(
            f"{data.root}: has other files than trial {stored.row['trial_id']} was scored on "
            f"(data_hash {found}, of the trial {expected}); give the dataset of that trial with "
            "--data-root DIR"
        )
    return val_set


def _choose(dataset: SegmentationDataset, data: DataSettings, count: int) -> list[int]:
    """Return the indices of the images to draw.

    Of up to 100 candidates, evenly spaced over the scored images, those with the most classes.
    """
    limit = min(len(dataset), data.val_limit or len(dataset))
    step = max(1.0, limit / max(count, _MAX_CANDIDATES))
    candidates = [int(i * step) for i in range(int(limit / step))]
    chosen = most_classes((dataset.read(index)[1].numpy() for index in candidates), count)
    return [candidates[i] for i in chosen]


@torch.no_grad()
def _compare(
    dataset: SegmentationDataset, index: int, networks: Iterable[StoredNetwork], data: DataSettings
) -> ComparisonRow:
    """Return an image, its label and each network's prediction, all as they were scored."""
    image_CHW, label_HW = dataset.read(index)
    input_CHW, scored_HW = eval_transform(image_CHW, label_HW, data)
    images_NCHW = normalised(input_CHW[None])
    labels_HW = [scored_HW.numpy()]
    for network in networks:
        scores_NCHW = class_scores(network.model, images_NCHW, data, size=scored_HW.shape)
        labels_HW.append(scores_NCHW[0].argmax(dim=0).byte().numpy())
    return ComparisonRow(image_CHW.permute(1, 2, 0).numpy(), labels_HW)


def _title(network: StoredNetwork) -> list[str]:
    """Return the two lines above a network's column."""
    name = network.name
    description = network.method
    if name == "baseline":
        description = "student alone"
    if description:
        name += f" ({description})"
    score = "mIoU not in the store"
    if network.miou is not None:
        score = f"mIoU {numbers.percent(network.miou)} %"
    return [name, score]
