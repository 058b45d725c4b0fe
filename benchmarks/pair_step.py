"""Measures a step of a small pretrained pair on one thread, with and without PyTorch's speed-ups.

    python -m benchmarks.pair_step

The student is smp/DeepLabV3Plus on EfficientNet-lite0, and the teacher the same on lite2, with
crops of 160 pixels and batches of 8. Before: weights and features in torch's default layout, the
teacher's convolutions unchanged. After: channels last, and the teacher's weights packed for oneDNN
once, as training on a CPU does. Also measured: 1x1 convolutions as matrix products.
"""

from __future__ import annotations

import json
import statistics

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.distill.method import build_method
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.models import build_model
from attnfd_ray.train.optim import build_optimizer
from attnfd_ray.train.step import StepRunner
from attnfd_ray.train.task import DistillationTask
from benchmarks.record import load, record
from benchmarks.steps import Step, timed

NUM_CLASSES = 11
SIDE = 160  # pixels
BATCH = 8
NUM_ROUNDS = 7
NUM_OPERATIONS = 8
ARCH = "smp/DeepLabV3Plus"
EXPERIMENT = {
    "experiment": "pair",
    "data": {"name": "camvid", "root": "unused", "crop": [SIDE, SIDE]},
    "teacher": {"arch": ARCH, "backbone": "tu-tf_efficientnet_lite2", "train": {"epochs": 1}},
    "student": {"arch": ARCH, "backbone": "tu-tf_efficientnet_lite0"},
    "method": {"name": "attnfd"},
    "train": {"batch_size": BATCH, "seed": 1, "gradient_checks": 0},
}


class _MatrixProduct(nn.Conv2d):
    """A 1x1 convolution as a matrix product; needs no copy of features in channels-last layout."""

    def forward(self, features_NCHW: Tensor) -> Tensor:
        features_NHWC = features_NCHW.movedim(1, -1)
        result_NHWC = F.linear(features_NHWC, self.weight.flatten(1), self.bias)
        return result_NHWC.movedim(-1, 1)


def step_of(method: str, *, tuned: bool, products: bool = False) -> Step:
    """Return a step on a batch of noise; `tuned` is the state after the speed-ups."""
    settings = ExperimentSettings.model_validate(EXPERIMENT | {"method": {"name": method}})
    torch.manual_seed(settings.train.seed)
    assert settings.teacher is not None
    student = build_model(settings.student, num_classes=NUM_CLASSES)
    teacher = None
    if method != "none":
        teacher = FrozenTeacher(build_model(settings.teacher, num_classes=NUM_CLASSES))
    loss, taps = build_method(settings, student, teacher)
    if products:
        _use_matrix_products(student)
    task = DistillationTask(student, loss, taps).train()
    if tuned:
        task = task.to(memory_format=torch.channels_last)
    if teacher is not None:
        if tuned:
            teacher.pack()
        teacher.set_mode(loss.teacher_mode).set_taps(taps)
    runner = StepRunner(
        task,
        teacher,
        build_optimizer(task, settings.optim),
        torch.amp.GradScaler("cpu", enabled=False),
        settings,
        device=torch.device("cpu"),
        total=1,
    )
    images_NCHW = torch.randn(BATCH, 3, SIDE, SIDE)
    if tuned:
        images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
    labels_NHW = torch.randint(NUM_CLASSES, (BATCH, SIDE, SIDE))
    return lambda: runner.step(images_NCHW, labels_NHW)


def _use_matrix_products(student: nn.Module) -> None:
    for module in student.modules():
        if type(module) is nn.Conv2d:
            is_1x1 = module.kernel_size == (1, 1) and module.stride == (1, 1)
            if is_1x1:
                module.__class__ = _MatrixProduct


def costliest(step: Step) -> list[str]:
    """Return the operations that take most of a step, with their share of its time."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    events = sorted(profiled.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [
        f"  {event.self_cpu_time_total / total:5.1%}  {event.key}"
        for event in events[:NUM_OPERATIONS]
    ]


def main() -> None:
    """Measure and record."""
    load_before = load()
    torch.set_num_threads(1)
    lines: list[str] = []
    for method in ("none", "attnfd"):
        before = step_of(method, tuned=False)
        after = step_of(method, tuned=True)
        products = step_of(method, tuned=True, products=True)
        steps = (before, after, products)
        for step in steps:
            step()
        # the three alternate, so that all meet the same state of the machine
        rounds = [tuple(timed(step) for step in steps) for _ in range(NUM_ROUNDS)]
        before_s, after_s, _ = (statistics.median(times) for times in zip(*rounds, strict=True))
        ratio = statistics.median(new / old for old, new, _ in rounds)
        product_ratio = statistics.median(other / new for _, new, other in rounds)
        lines.append(
            f"{method}: {BATCH / before_s:.1f} images/s before, {BATCH / after_s:.1f} after; "
            f"time x {ratio:.3f}"
        )
        lines.append(
            f"{method}: 1x1 convolutions as matrix products, time / after {product_ratio:.3f}"
        )
    lines += ["costliest operations of a step with attnfd, after:", *costliest(after)]
    record(
        "pair_step",
        lines,
        config=json.dumps(EXPERIMENT, indent=1),
        seeds="1",
        load_before=load_before,
    )


if __name__ == "__main__":
    main()
