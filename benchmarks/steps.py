"""One optimiser step on noise, ours and as the released AttnFD code takes it: what the step
benchmarks measure.

Same networks, method, loss, batch and optimiser on both sides. The released code runs the teacher
in train mode under autograd and does not detach what it says, so that backward goes through it,
into gradients that nobody uses or clears.
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
from attnfd_ray.train.step import StepRunner
from attnfd_ray.train.task import DistillationTask
from attnfd_ray.train.trainer import memory_layout

NUM_CLASSES, SIDE, BATCH, THREADS = 21, 129, 4, 2
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

Step = Callable[[], dict[str, Tensor]]


class ReleasedTeacher(nn.Module):
    """The released code's teacher: BatchNorm and dropout in train mode, its features with their
    graph.
    """

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
    """Return a step on a batch of noise that stays the same; `method` are other settings of a
    method than AttnFD's.
    """
    torch.set_num_threads(THREADS)
    settings = ExperimentSettings.model_validate(
        EXPERIMENT | ({"method": method} if method else {})
    )
    torch.manual_seed(settings.train.seed)
    assert settings.teacher is not None
    network = build_model(settings.teacher, num_classes=NUM_CLASSES)
    student = build_model(settings.student, num_classes=NUM_CLASSES)
    # what the method is built on does not matter to it, as long as it has the channels of the
    # teacher
    teacher: Any = FrozenTeacher(network)
    loss, taps = build_method(settings, student, teacher)
    task = DistillationTask(student, loss, taps).train()
    if released:
        teacher = ReleasedTeacher(network)
        for layer, frozen in loss.teacher_gates.items():
            loss.teacher_gates[layer] = frozen.gate
    else:
        # as `Trainer` does
        task.to(memory_format=memory_layout(settings.train, torch.device("cpu")))
        teacher.pack().set_mode(loss.teacher_mode)
    teacher.set_taps(taps)
    optimizer = build_optimizer(task, settings.optim)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    listened = teacher if loss.needs_teacher else None
    stepper = StepRunner(
        task, listened, optimizer, scaler, settings, device=torch.device("cpu"), total=1
    )
    images_NCHW = torch.randn(BATCH, 3, SIDE, SIDE)
    labels_NHW = torch.randint(NUM_CLASSES, (BATCH, SIDE, SIDE))
    return lambda: stepper.step(images_NCHW, labels_NHW)


def timed(step: Step) -> float:
    """Return the seconds a step takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def max_rss_mib() -> float:
    """Return the most memory this process ever held."""
    # not getrusage: its peak is inherited from the process that started this one
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return float(line.split()[1]) / 1024  # in KiB
