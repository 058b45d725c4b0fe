"""Builds what a run trains: the student and the method, and prepares the teacher. No ray."""

from __future__ import annotations

import torch

from attnfd_ray.config.schema import ExperimentSettings, ModelSettings, TrainSettings
from attnfd_ray.distill.method import build_method
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.models import build_model
from attnfd_ray.train.distributed import convert_sync_batchnorm, seed_everything
from attnfd_ray.train.precision import memory_layout
from attnfd_ray.train.task import DistillationTask


def build_task(
    settings: ExperimentSettings,
    teacher: FrozenTeacher | None,
    *,
    num_classes: int,
    device: torch.device,
    is_resumed: bool,
) -> tuple[DistillationTask, FrozenTeacher | None]:
    """Return the task on its device, and the teacher where the method needs one.

    A resumed run loads no pretrained weights: its checkpoint has all weights.
    """
    train = settings.train
    # Seeded like an epoch before the first, and the same on every worker.
    seed_everything(train.seed, epoch=0, rank=0)
    student_settings = settings.student
    if is_resumed:
        student_settings = without_pretrained(settings.student)
    student = build_model(student_settings, num_classes=num_classes)
    method, taps = build_method(settings, student, teacher)
    if train.sync_batchnorm:
        student = convert_sync_batchnorm(student, device)
        method = convert_sync_batchnorm(method, device)
    factor = 1.0
    if method.loss_over_batch_size:
        factor = 1 / train.batch_size
    task = DistillationTask(student, method, taps, factor=factor).to(device)
    task = task.to(memory_format=memory_layout(train, device))
    if teacher is None or not method.needs_teacher:
        return task, None
    _speed_up(teacher, train, device)
    teacher.set_mode(method.teacher_mode).set_taps(taps)
    return task, teacher


def without_pretrained(student: ModelSettings) -> ModelSettings:
    """Return the settings of a network whose weights are loaded after it is built."""
    return student.model_copy(update={"pretrained": "none"})


def _speed_up(teacher: FrozenTeacher, train: TrainSettings, device: torch.device) -> None:
    """Give the teacher the fastest memory layout; it keeps it for later runs."""
    if device.type == "cpu" and train.precision == "fp32":
        teacher.pack()
    else:
        teacher.to(memory_format=memory_layout(train, device))
