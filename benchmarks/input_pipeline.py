"""Measures the images per second that one process loads for training, against a paper's pipeline.

    python -m benchmarks.input_pipeline        # with ATTNFD_CAMVID=/data/CamVid on CamVid too

The paper's pipeline opens image and mask with Pillow and does the same augmentation in Pillow and
NumPy: scale, crop, blur, flip, normalise, to tensor. Both read the same files and return a float32
batch and int64 labels.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from attnfd_ray.config.schema import DataSettings
from attnfd_ray.data.datasets.base import SegmentationDataset, open_dataset
from attnfd_ray.data.generate.toyscenes import write_toyscenes
from attnfd_ray.data.loading.loader import TrainLoader
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.data.loading.transforms import IMAGENET_MEAN, IMAGENET_STD
from benchmarks.record import load, record

CROP = 513  # pixels
BATCH = 8
IMAGES = 96
ROUNDS = 5
SIZE = (500, 375)  # width, height of a photograph of VOC
LIMITS = {"memory": 3.0, "disk": 3.0, "none": 1.5}  # cache -> times the paper's pipeline
BLURS = (0.0, 0.5)

Batch = tuple[Tensor, Tensor]
Epoch = Callable[[], Iterator[Batch]]


class PaperPipeline:
    """Loads image by image, as published code of papers does."""

    def __init__(self, dataset: SegmentationDataset, data: DataSettings, seed: int) -> None:
        self.dataset = dataset
        self.data = data
        self.rng = np.random.default_rng(seed)

    def epoch(self) -> Iterator[Batch]:
        order = self.rng.permutation(len(self.dataset))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            pairs = [self.view(int(index)) for index in order[start : start + BATCH]]
            images, labels = zip(*pairs, strict=True)
            yield torch.stack(images), torch.stack(labels)

    def view(self, index: int) -> Batch:
        image_path, mask_path = self.dataset.paths(index)
        image = Image.open(image_path).convert("RGB")
        mask = Image.open(mask_path)
        if self.rng.random() < self.data.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        factor = self.rng.uniform(*self.data.scale)
        size = [round(side * factor) for side in image.size]
        image = image.resize(size, Image.Resampling.BILINEAR)
        mask = mask.resize(size, Image.Resampling.NEAREST)
        right, below = (max(0, CROP - side) for side in size)
        if right or below:
            image = ImageOps.expand(image, (0, 0, right, below), fill=0)
            mask = ImageOps.expand(mask, (0, 0, right, below), fill=self.data.pad_label)
        left, top = (int(self.rng.integers(side - CROP + 1)) for side in image.size)
        box = (left, top, left + CROP, top + CROP)
        image = image.crop(box)
        mask = mask.crop(box)
        if self.rng.random() < self.data.blur:
            image = image.filter(ImageFilter.GaussianBlur(self.rng.random()))
        image_HWC = np.array(image).astype(np.float32)
        image_HWC = (image_HWC / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
        image_CHW = image_HWC.astype(np.float32).transpose((2, 0, 1))
        mask_HW = np.array(mask).astype(np.float32)
        return torch.from_numpy(image_CHW).float(), torch.from_numpy(mask_HW).long()


def images_per_s(epoch: Epoch) -> float:
    start = time.perf_counter()
    count = 0
    for images_NCHW, _ in epoch():
        assert images_NCHW.shape[1:] == (3, CROP, CROP), "both sides make the same crops"
        count += len(images_NCHW)
    return count / (time.perf_counter() - start)


def measured(name: str, data: DataSettings) -> tuple[list[str], bool]:
    """Return a line per cache and chance of a blur, and whether all are within the limits."""
    lines: list[str] = []
    is_within_limits = True
    for blur in BLURS:
        rounds = _rounds(data.model_copy(update={"blur": blur}))
        paper = statistics.median(speeds["paper"] for speeds in rounds)
        lines.append(f"{name}, blur {blur:g}: paper's pipeline {paper:.0f} images/s")
        for cache, limit in LIMITS.items():
            ours = statistics.median(speeds[cache] for speeds in rounds)
            ratios = sorted(speeds[cache] / speeds["paper"] for speeds in rounds)
            ratio = statistics.median(ratios)
            if ratio < limit:
                is_within_limits = False
            lines.append(
                f"  cache {cache}: {ours:.0f} images/s, {ratio:.2f} times the paper's "
                f"(rounds {ratios[0]:.2f} to {ratios[-1]:.2f}), limit {limit:g}"
            )
    return lines, is_within_limits


def _rounds(data: DataSettings) -> list[dict[str, float]]:
    """Return the images per second of each cache and of the paper's pipeline, round by round."""
    datasets = {
        cache: open_dataset(data.model_copy(update={"cache": cache}), split="train")
        for cache in LIMITS
    }
    epochs: dict[str, Epoch] = {}
    for cache, dataset in datasets.items():
        dataset.samples = dataset.samples[:IMAGES]
        loader = TrainLoader(
            dataset, data, readers=ReaderPool([dataset]), global_batch_size=BATCH, seed=1
        )
        epochs[cache] = _numbered_epochs(loader)
    epochs["paper"] = PaperPipeline(datasets["none"], data, seed=1).epoch
    for epoch in epochs.values():  # fills the caches, and the system's own of the files
        images_per_s(epoch)
    rounds = [{side: images_per_s(epoch) for side, epoch in epochs.items()} for _ in range(ROUNDS)]
    for dataset in datasets.values():
        dataset.close()
    return rounds


def _numbered_epochs(loader: TrainLoader) -> Epoch:
    """Return a function that loads the next epoch at each call."""
    numbers = iter(range(1, 1000))
    return lambda: loader.epoch(next(numbers))


def upscaled_scenes(root: Path) -> None:
    """Write toyscenes of the size of VOC's photographs."""
    write_toyscenes(root, size=96, train=IMAGES, val=1)
    home = root / "VOCdevkit/VOC2012"
    for path in sorted((home / "JPEGImages").iterdir()):
        Image.open(path).resize(SIZE, Image.Resampling.BILINEAR).save(path, quality=90)
    for path in sorted((home / "SegmentationClass").iterdir()):
        Image.open(path).resize(SIZE, Image.Resampling.NEAREST).save(path)


def main() -> int:
    """Measure, record, and return 1 if a limit is not reached."""
    load_before = load()
    torch.set_num_threads(1)
    settings: dict[str, Any] = {"crop": (CROP, CROP), "scale": (0.5, 2.0)}
    with tempfile.TemporaryDirectory() as directory:
        os.environ["ATTNFD_CACHE"] = str(Path(directory) / "cache")
        upscaled_scenes(Path(directory) / "scenes")
        sets = {
            "toyscenes 500x375": DataSettings(
                name="toyscenes", root=f"{directory}/scenes", **settings
            )
        }
        camvid = os.environ.get("ATTNFD_CAMVID")
        if camvid:
            sets["CamVid 480x360"] = DataSettings(name="camvid", root=camvid, **settings)
        results = [measured(name, data) for name, data in sets.items()]
    is_within_limits = all(within for _, within in results)
    kept = {True: "yes", False: "NO"}[is_within_limits]
    lines = [line for set_lines, _ in results for line in set_lines]
    config = (
        f"crop {CROP}, batch {BATCH}, scale 0.5 to 2, flip 0.5, {IMAGES} images, one process of "
        "one thread"
    )
    record(
        "input_pipeline",
        [*lines, f"limits kept: {kept}"],
        config=config,
        seeds="1 on both sides",
        load_before=load_before,
    )
    return int(not is_within_limits)


if __name__ == "__main__":
    sys.exit(main())
