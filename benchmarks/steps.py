"""One optimiser step on noise, ours and that of the released AttnFD code, for the step benchmarks.

Networks, method, loss, batch and optimiser are the same on both sides. The released code runs the
teacher in train mode under autograd and does not detach its features. So backward goes through the
teacher too, into gradients that are never used or cleared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.distill.method import build_method
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.models import SegmentationModel, TapRecorder, build_model
from attnfd_ray.train.optim import build_optimizer
from attnfd_ray.train.precision import memory_layout
from attnfd_ray.train.step import StepRunner
from attnfd_ray.train.task import DistillationTask

NUM_CLASSES = 21
SIDE = 129  # pixels
BATCH = 4
THREADS = 2
CPU = torch.device("cpu")
EXPERIMENT = {
    "experiment": "steps",
    "data": {"name": "voc", "root": "unused", "crop": [SIDE, SIDE]},
    "teacher": {"backbone": "resnet101", "train": {"epochs": 1}},
    "student": {"backbone": "resnet18"},
    "method": {
        "name": "attnfd",
        "layers": ["stage4", "aspp", "decoder"],
        "teacher_gate": "parameter_free",
    },
    "train": {"batch_size": BATCH, "seed": 1},
}

CONFIG = {
    "experiment": EXPERIMENT,
    "num_classes": NUM_CLASSES,
    "threads": THREADS,
    "device": "cpu",
}

Step = Callable[[], dict[str, Tensor]]


class ReleasedTeacher(nn.Module):
    """The released code's teacher: in train mode, and its features keep their graph."""

    def __init__(self, network: SegmentationModel) -> None:
        super().__init__()
        self.network = network.requires_grad_(True).train()

    def set_taps(self, taps: tuple[str, ...]) -> None:
        self._recorder = TapRecorder(self.network, taps)

    def forward(self, images_NCHW: Tensor) -> dict[str, Tensor]:
        self.network(images_NCHW)
        features = dict(self._recorder.features)
        self._recorder.clear()
        return features


def build_step(*, released: bool = False, method: dict[str, Any] | None = None) -> Step:
    """Return a step on a fixed batch of noise; `method` replaces the settings of AttnFD."""
    torch.set_num_threads(THREADS)
    tree = dict(EXPERIMENT)
    if method:
        tree["method"] = method
    settings = ExperimentSettings.model_validate(tree)
    torch.manual_seed(settings.train.seed)
    assert settings.teacher is not None
    network = build_model(settings.teacher, num_classes=NUM_CLASSES)
    student = build_model(settings.student, num_classes=NUM_CLASSES)
    # the method only needs the teacher's numbers of channels, so it may be built on either teacher
    teacher: Any = FrozenTeacher(network)
    loss, taps = build_method(settings, student, teacher)
    task = DistillationTask(student, loss, taps).train()
    if released:
        teacher = ReleasedTeacher(network)
        for layer, frozen in loss.teacher_gates.items():
            loss.teacher_gates[layer] = frozen.gate
    else:
        # as a run does, see train/build.py
        task.to(memory_format=memory_layout(settings.train, CPU))
        teacher.pack().set_mode(loss.teacher_mode)
    teacher.set_taps(taps)
    if not loss.needs_teacher:
        teacher = None
    runner = StepRunner(
        task,
        teacher,
        build_optimizer(task, settings.optim),
        torch.amp.GradScaler("cpu", enabled=False),
        settings,
        device=CPU,
        total=1,
    )
    images_NCHW = torch.randn(BATCH, 3, SIDE, SIDE)
    labels_NHW = torch.randint(NUM_CLASSES, (BATCH, SIDE, SIDE))
    return lambda: runner.step(images_NCHW, labels_NHW)


def timed(step: Step) -> float:
    """Return the seconds that a step takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def max_rss_mib() -> float:
    """Return the peak memory of this process."""
    # not getrusage: its peak includes that of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM:"))
    _, kib, _ = line.split()
    return float(kib) / 1024
