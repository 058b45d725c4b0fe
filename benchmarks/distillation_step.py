"""What a distillation step costs beside the step of the released AttnFD code, in time and in memory.

    python -m benchmarks.distillation_step

Same networks, method, loss, batch and optimiser on both sides. The released code runs the teacher in train mode under
autograd and does not detach what it says, so that backward goes through it, into gradients that nobody uses or clears.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.distill.method import build_method
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.models import SegmentationModel, TapRecorder, build_model
from attnfd_ray.train.loop import memory_layout
from attnfd_ray.train.optim import build_optimizer
from attnfd_ray.train.step import Stepper
from attnfd_ray.train.task import DistillationTask
from benchmarks.record import load, record

SECONDS_LIMIT, MEMORY_LIMIT = 0.45, 0.8
NUM_CLASSES, SIDE, BATCH, THREADS = 21, 129, 4, 2
NUM_PAIRS, NUM_WARM_UP = 24, 2
TIMEOUT_S = 300.0

EXPERIMENT = {
    "experiment": "distillation-step",
    "data": {"name": "voc", "root": "unused", "crop": [SIDE, SIDE]},
    "teacher": {"backbone": "resnet101", "train": {"epochs": 1}},
    "student": {"backbone": "resnet18"},
    "method": {"name": "attnfd", "layers": ["stage4", "aspp", "decoder"], "teacher_gate": "parameter_free"},
    "train": {"batch_size": BATCH, "seed": 1},
}

Step = Callable[[], dict[str, Tensor]]


class ReleasedTeacher(nn.Module):
    """The released code's teacher: BatchNorm and dropout in train mode, its features with their graph."""

    def __init__(self, network: SegmentationModel) -> None:
        super().__init__()
        self.network = network.requires_grad_(True).train()

    def listen(self, taps: tuple[str, ...]) -> None:
        self._recorder = TapRecorder(self.network, taps)

    def forward(self, images_NCHW: Tensor) -> dict[str, Tensor]:
        self.network(images_NCHW)
        features = dict(self._recorder.features)
        self._recorder.clear()
        return features


def build(kind: str) -> Step:
    """Return the step to measure, "ours" or "released", on a batch of noise that stays the same."""
    torch.set_num_threads(THREADS)
    settings = ExperimentSettings.model_validate(EXPERIMENT)
    torch.manual_seed(settings.train.seed)
    assert settings.teacher is not None
    network = build_model(settings.teacher, num_classes=NUM_CLASSES)
    student = build_model(settings.student, num_classes=NUM_CLASSES)
    # what the method is built on does not matter to it, as long as it has the channels of the teacher
    teacher: Any = FrozenTeacher(network)
    method: Any
    method, taps = build_method(settings, student, teacher)
    if kind == "released":
        teacher = ReleasedTeacher(network)
        for layer, frozen in method.teacher_gates.items():
            method.teacher_gates[layer] = frozen.gate
    teacher.listen(taps)
    task = DistillationTask(student, method, taps).train()
    optimizer = build_optimizer(task, settings.optim)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    if kind == "ours":
        task.to(memory_format=memory_layout(settings.train, torch.device("cpu")))
        teacher.to(memory_format=memory_layout(settings.train, torch.device("cpu"))).pack()
    stepper = Stepper(task, teacher, optimizer, scaler, settings, device=torch.device("cpu"), total=1)
    images_NCHW = torch.randn(BATCH, 3, SIDE, SIDE)
    labels_NHW = torch.randint(NUM_CLASSES, (BATCH, SIDE, SIDE))
    return lambda: stepper.step(images_NCHW, labels_NHW)


def seconds() -> list[tuple[float, float]]:
    """Return (ours, released) of each pair of steps, taken in turn so that both meet the same machine."""
    ours, released = build("ours"), build("released")
    for _ in range(NUM_WARM_UP):
        ours()
        released()
    return [(_timed(ours), _timed(released)) for _ in range(NUM_PAIRS)]


def peak_mib(kind: str) -> tuple[float, float]:
    """Return the most memory of a fresh process: all of it, and what the steps added to the built networks."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_mib_here, kind).result(timeout=TIMEOUT_S)


def _peak_mib_here(kind: str) -> tuple[float, float]:
    step = build(kind)
    built_mib = _max_rss_mib()
    for _ in range(3):
        step()
    return _max_rss_mib(), _max_rss_mib() - built_mib


def _max_rss_mib() -> float:
    # not getrusage: its peak is inherited from the process that started this one
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return float(line.split()[1]) / 1024  # in KiB


def _timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> int:
    """Measure, record, and return 1 if a limit is not kept."""
    load_before = load()
    whole, added = zip(*(peak_mib(kind) for kind in ("ours", "released")), strict=True)
    pairs = seconds()
    ours_s, released_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(ours / released for ours, released in pairs)
    time_ratio, memory_ratio = statistics.median(ratios), whole[0] / whole[1]
    kept = time_ratio <= SECONDS_LIMIT and memory_ratio <= MEMORY_LIMIT
    fastest = [min(side) for side in zip(*pairs, strict=True)]
    time_range = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
    lines = [
        f"step, s (median of {NUM_PAIRS}): ours {ours_s:.3f}, released {released_s:.3f}",
        f"time, ours / released (median of pairs, {time_range}): {time_ratio:.3f}, limit {SECONDS_LIMIT}",
        f"fastest step, s: ours {fastest[0]:.3f}, released {fastest[1]:.3f}, ratio {fastest[0] / fastest[1]:.3f}",
        f"peak memory of the process, MiB: ours {whole[0]:.0f}, released {whole[1]:.0f}",
        f"peak memory, ours / released: {memory_ratio:.3f}, limit {MEMORY_LIMIT}",
        f"of it added by the steps, MiB: ours {added[0]:.0f}, released {added[1]:.0f}, ratio {added[0] / added[1]:.3f}",
        f"limits kept: {'yes' if kept else 'NO'}",
    ]
    config = {"experiment": EXPERIMENT, "num_classes": NUM_CLASSES, "threads": THREADS, "device": "cpu"}
    record(
        "distillation_step",
        lines,
        config=json.dumps(config, indent=1),
        seeds="1 for weights and batch",
        load_before=load_before,
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
