"""Measures the latency of a student: one image through the exported network. No ray.

It is measured on the device that trained the student, with the image size, precision and memory
layout used there. The batch is one image: the first of the val split, or a window of it with
`evaluation: sliding`. Two measurements of the same network differ by a few per cent, and by more
where other trials share the processor. Latencies of different image sizes, precisions, devices or
numbers of threads cannot be compared. `Latency.protocol` names these, and a report keeps different
ones apart. A sampler does not, so run a search on devices of one kind.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from attnfd_ray.config.schema import DataSettings, ExperimentSettings
from attnfd_ray.data.datasets.base import SegmentationDataset
from attnfd_ray.data.loading.loader import val_batches
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.models import build_model
from attnfd_ray.models.files import load_weights
from attnfd_ray.train.build import without_pretrained
from attnfd_ray.train.precision import autocast, memory_layout

_WARM_UP = 5  # passes that do not count: libraries choose their kernels in them
# At least so many passes, and for at least a second: a short load of the machine then averages out.
_MIN_PASSES = 30
_MIN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The median over forward passes, in milliseconds; `protocol` names its conditions."""

    ms: float
    protocol: str


def measure(
    weights: Path,
    settings: ExperimentSettings,
    dataset: SegmentationDataset,
    *,
    readers: ReaderPool,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Measure the student in a file of weights on an image of `dataset`.

    Raises DataError where the image cannot be read, and CheckpointError where the weights cannot.
    """
    student = without_pretrained(settings.student)
    network: nn.Module = build_model(student, num_classes=dataset.num_classes)
    load_weights(network, weights, num_classes=dataset.num_classes)
    layout = memory_layout(settings.train, device)
    network = network.eval().to(device).to(memory_format=layout)
    image_1CHW = _image(dataset, settings.data, readers, device)

    def forward_s() -> float:
        start = clock()
        with torch.inference_mode(), autocast(device, settings.train):
            network(image_1CHW)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - start

    for _ in range(_WARM_UP):
        forward_s()
    times_s: list[float] = []
    while len(times_s) < _MIN_PASSES or sum(times_s) < _MIN_S:
        times_s.append(forward_s())
    height, width = image_1CHW.shape[-2:]
    protocol = f"{height}x{width} {settings.train.precision} on {where(device)}"
    return Latency(ms=1000 * median(times_s), protocol=protocol)


def where(device: torch.device) -> str:
    """Return the model of a GPU, or the model of a CPU and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = "1 thread"
    if torch.get_num_threads() > 1:
        threads = f"{torch.get_num_threads()} threads"
    return f"{_processor()}, {threads}"


def _processor() -> str:
    """Return the name of the processor where Linux gives it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            _, _, name = line.partition(":")
            return name.strip()
    return platform.machine()


def _image(
    dataset: SegmentationDataset, data: DataSettings, readers: ReaderPool, device: torch.device
) -> Tensor:
    first = data.model_copy(update={"val_limit": 1})
    image_1CHW, _ = next(val_batches(dataset, first, readers=readers, device=device))
    if data.evaluation == "sliding":
        rows, columns = data.crop
        image_1CHW = image_1CHW[..., :rows, :columns].contiguous()
    return image_1CHW
