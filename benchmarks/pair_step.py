"""What a step of a small pretrained pair costs on one thread, before and after what PyTorch offers
for it.

    python -m benchmarks.pair_step

Student smp/DeepLabV3Plus on EfficientNet-lite0, teacher the same on lite2, crops of 160 pixels,
batches of 8. Before: weights and features in torch's usual layout, the teacher's convolutions as
they are. After: channels last, and the teacher's weights laid out for oneDNN once, which is what
training does on a CPU. Tried beside it: 1x1 convolutions as matrix products.
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

NUM_CLASSES, SIDE, BATCH, NUM_ROUNDS, TOP_OPS = 11, 160, 8, 7, 8
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
    """A 1x1 convolution as a matrix product, which features in channels-last layout allow without a
    copy.
    """

    def forward(self, features_NCHW: Tensor) -> Tensor:
        return F.linear(features_NCHW.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(
            -1, 1
        )


def step_of(method: str, *, tuned: bool, products: bool = False) -> Step:
    """Return a step on a batch of noise."""
    settings = ExperimentSettings.model_validate(EXPERIMENT | {"method": {"name": method}})
    torch.manual_seed(settings.train.seed)
    assert settings.teacher is not None
    student = build_model(settings.student, num_classes=NUM_CLASSES)
    teacher = (
        FrozenTeacher(build_model(settings.teacher, num_classes=NUM_CLASSES))
        if method != "none"
        else None
    )
    loss, taps = build_method(settings, student, teacher)
    if products:
        for module in student.modules():
            if type(module) is nn.Conv2d and (module.kernel_size, module.stride) == (
                (1, 1),
                (1, 1),
            ):
                module.__class__ = _MatrixProduct
    task = DistillationTask(student, loss, taps).train()
    if tuned:
        task = task.to(memory_format=torch.channels_last)
    if teacher is not None:
        (teacher.pack() if tuned else teacher).set_mode(loss.teacher_mode).set_taps(taps)
    optimizer = build_optimizer(task, settings.optim)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    stepper = StepRunner(
        task, teacher, optimizer, scaler, settings, device=torch.device("cpu"), total=1
    )
    images_NCHW = torch.randn(BATCH, 3, SIDE, SIDE)
    if tuned:
        images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
    labels_NHW = torch.randint(NUM_CLASSES, (BATCH, SIDE, SIDE))
    return lambda: stepper.step(images_NCHW, labels_NHW)


def costliest(step: Step) -> list[str]:
    """Return the operations that take most of a step, with their share of it."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    found = sorted(profiled.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in found)
    return [f"  {event.self_cpu_time_total / whole:5.1%}  {event.key}" for event in found[:TOP_OPS]]


def main() -> None:
    """Measure and record."""
    load_before = load()
    torch.set_num_threads(1)
    lines = []
    for method in ("none", "attnfd"):
        before, after, tried = (
            step_of(method, tuned=False),
            step_of(method, tuned=True),
            step_of(method, tuned=True, products=True),
        )
        for each in (before, after, tried):
            each()
        # in turn, so that all meet the same machine
        rounds = [tuple(timed(each) for each in (before, after, tried)) for _ in range(NUM_ROUNDS)]
        old_s, new_s, _ = (statistics.median(side) for side in zip(*rounds, strict=True))
        ratio = statistics.median(new / old for old, new, _ in rounds)
        product = statistics.median(other / new for _, new, other in rounds)
        lines += [
            (
                f"{method}: {BATCH / old_s:.1f} images/s before, {BATCH / new_s:.1f} after; time x "
                f"{ratio:.3f}"
            ),
            f"{method}: 1x1 convolutions as matrix products, time / after {product:.3f}",
        ]
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
