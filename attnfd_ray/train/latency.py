"""How long a student takes for one image: the exported network, as it is scored, on the device it
was trained on.

Batch 1, the first image of the val split in the size the network sees it in when scored (whole, or
a window of it), the precision and memory layout of training. Twice the same network differs by some
per cent, by more where other trials share the processor; unlike sizes, precisions, devices and
numbers of threads, which `Latency.protocol` names, tell nothing of each other. A report keeps them
apart; a sampler takes them as they come, so give a search like devices.
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
from attnfd_ray.train.evaluate import autocast
from attnfd_ray.train.trainer import memory_layout

_WARM_UP = 5  # forwards before the first that counts: libraries choose their kernels in them
_FORWARDS = 30  # at least, and as many as a second holds: a busy moment then passes
_AT_LEAST_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The median over forwards, in milliseconds, and what was timed on what."""

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
    """Time the student in a file of weights on an image of `dataset`. DataError where that cannot
    be read.
    """
    plain = settings.student.model_copy(update={"pretrained": "none"})
    network: nn.Module = build_model(plain, num_classes=dataset.num_classes)
    load_weights(network, weights, num_classes=dataset.num_classes)
    network = network.eval().to(device).to(memory_format=memory_layout(settings.train, device))
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
    while len(times_s) < _FORWARDS or sum(times_s) < _AT_LEAST_S:
        times_s.append(forward_s())
    height, width = image_1CHW.shape[-2:]
    protocol = f"{height}x{width} {settings.train.precision} on {where(device)}"
    return Latency(ms=1000 * median(times_s), protocol=protocol)


def where(device: torch.device) -> str:
    """Return what makes two latencies comparable: the kind of the device, of a CPU the number of
    threads too.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    """Return the processor by its name where Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _image(
    dataset: SegmentationDataset, data: DataSettings, readers: ReaderPool, device: torch.device
) -> Tensor:
    first = data.model_copy(update={"val_limit": 1})
    image_1CHW, _ = next(val_batches(dataset, first, readers=readers, device=device))
    if data.evaluation == "sliding":
        rows, columns = data.crop
        image_1CHW = image_1CHW[..., :rows, :columns].contiguous()
    return image_1CHW
