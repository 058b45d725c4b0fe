"""How many images a second one process makes ready for training, beside the pipeline of a paper's
code.

    python -m benchmarks.input_pipeline        # with ATTNFD_CAMVID=/data/CamVid on CamVid too

The other side opens image and mask with Pillow, converts, and does the same augmentation in Pillow
and NumPy: scale, crop, blur, flip, normalise, to tensor. Both read the same files and end with a
float32 batch and int64 labels.
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

CROP, BATCH, IMAGES, ROUNDS = 513, 8, 96, 5
SIZE = (500, 375)
LIMITS = {"memory": 3.0, "disk": 3.0, "none": 1.5}
BLURS = (0.0, 0.5)

Batch = tuple[Tensor, Tensor]


class PaperPipeline:
    """Image by image, as the code that papers publish does it."""

    def __init__(self, dataset: SegmentationDataset, data: DataSettings, seed: int) -> None:
        self.dataset, self.data, self.rng = dataset, data, np.random.default_rng(seed)

    def epoch(self) -> Iterator[Batch]:
        order = self.rng.permutation(len(self.dataset))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            pairs = [self.view(int(index)) for index in order[start : start + BATCH]]
            images, labels = zip(*pairs, strict=True)
            yield torch.stack(images), torch.stack(labels)

    def view(self, index: int) -> Batch:
        image_path, mask_path = self.dataset.paths(index)
        image, mask = Image.open(image_path).convert("RGB"), Image.open(mask_path)
        if self.rng.random() < self.data.flip:
            image, mask = (
                picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in (image, mask)
            )
        factor = self.rng.uniform(*self.data.scale)
        size = [round(side * factor) for side in image.size]
        image, mask = (
            image.resize(size, Image.Resampling.BILINEAR),
            mask.resize(size, Image.Resampling.NEAREST),
        )
        right, below = (max(0, CROP - side) for side in size)
        if right or below:
            image = ImageOps.expand(image, (0, 0, right, below), fill=0)
            mask = ImageOps.expand(mask, (0, 0, right, below), fill=self.data.pad_label)
        left, top = (int(self.rng.integers(side - CROP + 1)) for side in image.size)
        box = (left, top, left + CROP, top + CROP)
        image, mask = image.crop(box), mask.crop(box)
        if self.rng.random() < self.data.blur:
            image = image.filter(ImageFilter.GaussianBlur(self.rng.random()))
        image_HWC = np.array(image).astype(np.float32)
        image_HWC = (image_HWC / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
        image_CHW = image_HWC.astype(np.float32).transpose((2, 0, 1))
        return torch.from_numpy(image_CHW).float(), torch.from_numpy(
            np.array(mask).astype(np.float32)
        ).long()


def images_per_s(epoch: Callable[[], Iterator[Batch]]) -> float:
    start, count = time.perf_counter(), 0
    for images_NCHW, _ in epoch():
        assert images_NCHW.shape[1:] == (3, CROP, CROP), "both sides make the same crops"
        count += len(images_NCHW)
    return count / (time.perf_counter() - start)


def measured(name: str, data: DataSettings) -> tuple[list[str], bool]:
    """Return a line for each cache and each chance of a blur, and whether the limits are kept."""
    lines, kept = [], True
    for blur in BLURS:
        sides: dict[str, Callable[[], Iterator[Batch]]] = {}
        data = data.model_copy(update={"blur": blur})
        opened = {
            cache: open_dataset(data.model_copy(update={"cache": cache}), split="train")
            for cache in LIMITS
        }
        for cache, dataset in opened.items():
            dataset.samples = dataset.samples[:IMAGES]
            loader = TrainLoader(
                dataset, data, readers=ReaderPool([dataset]), global_batch_size=BATCH, seed=1
            )
            sides[cache] = _epochs(loader)
        sides["paper"] = PaperPipeline(opened["none"], data, seed=1).epoch
        for epoch in sides.values():  # fills the caches, warms the files
            images_per_s(epoch)
        rounds = [
            {side: images_per_s(epoch) for side, epoch in sides.items()} for _ in range(ROUNDS)
        ]
        paper = statistics.median(found["paper"] for found in rounds)
        lines.append(f"{name}, blur {blur:g}: paper's pipeline {paper:.0f} images/s")
        for cache, limit in LIMITS.items():
            ours = statistics.median(found[cache] for found in rounds)
            ratios = sorted(found[cache] / found["paper"] for found in rounds)
            ratio = statistics.median(ratios)
            kept = kept and ratio >= limit
            lines.append(
                f"  cache {cache}: {ours:.0f} images/s, {ratio:.2f} times the paper's "
                f"(rounds {ratios[0]:.2f} to {ratios[-1]:.2f}), limit {limit:g}"
            )
        for dataset in opened.values():
            dataset.close()
    return lines, kept


def _epochs(loader: TrainLoader) -> Callable[[], Iterator[Batch]]:
    numbers = iter(range(1, 1000))
    return lambda: loader.epoch(next(numbers))


def upscaled_scenes(root: Path) -> None:
    """Write toyscenes as large as photographs of VOC are."""
    write_toyscenes(root, size=96, train=IMAGES, val=1)
    home = root / "VOCdevkit/VOC2012"
    for path in sorted((home / "JPEGImages").iterdir()):
        Image.open(path).resize(SIZE, Image.Resampling.BILINEAR).save(path, quality=90)
    for path in sorted((home / "SegmentationClass").iterdir()):
        Image.open(path).resize(SIZE, Image.Resampling.NEAREST).save(path)


def main() -> int:
    """Measure, record, and return 1 if a limit is not kept."""
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
        if camvid := os.environ.get("ATTNFD_CAMVID"):
            sets["CamVid 480x360"] = DataSettings(name="camvid", root=camvid, **settings)
        found = [measured(name, data) for name, data in sets.items()]
    kept = all(limits_kept for _, limits_kept in found)
    lines = [line for part, _ in found for line in part] + [
        f"limits kept: {'yes' if kept else 'NO'}"
    ]
    config = f"crop {CROP}, batch {BATCH}, scale 0.5 to 2, flip 0.5, {IMAGES} images, one process of one thread"
    record("input_pipeline", lines, config=config, seeds="1 on both sides", load_before=load_before)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
