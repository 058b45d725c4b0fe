"""The optimiser's parameter groups and the learning rate schedule. No ray."""

from __future__ import annotations

import torch
from torch import nn

from attnfd_ray.config.schema import OptimSettings
from attnfd_ray.train.task import DistillationTask


def build_optimizer(task: DistillationTask, settings: OptimSettings) -> torch.optim.SGD:
    """Return SGD with two groups: the student's backbone (lr), the rest (lr x head_lr_factor)."""
    backbone = [
        parameter for parameter in task.student.backbone_parameters() if parameter.requires_grad
    ]
    backbone_ids = {id(parameter) for parameter in backbone}
    rest = [
        parameter
        for parameter in task.parameters()
        if parameter.requires_grad and id(parameter) not in backbone_ids
    ]
    groups = [
        {"params": backbone, "lr": settings.lr},
        {"params": rest, "lr": settings.lr * settings.head_lr_factor},
    ]
    optimizer = torch.optim.SGD(
        groups,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    check_groups(task, optimizer)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def check_groups(task: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Assert that each trainable parameter is in exactly one group, and that no other is in any."""
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    trainable = {
        id(parameter): name
        for name, parameter in task.named_parameters()
        if parameter.requires_grad
    }
    assert len(grouped) == len(set(grouped)), "a parameter is in two optimiser groups"
    missing = [trainable[key] for key in trainable if key not in set(grouped)]
    assert not missing, f"in no optimiser group: {', '.join(missing)}"
    assert len(grouped) == len(trainable), (
        "an optimiser group holds a parameter that is not trained"
    )


def set_learning_rate(
    optimizer: torch.optim.Optimizer, settings: OptimSettings, *, step: int, total: int
) -> float:
    """Set the learning rates for optimiser step `step` (from 0) of `total`; return the backbone's.

    They depend on the step alone, so there is no schedule state to save.
    """
    factor = 1.0
    if settings.schedule == "poly":
        factor = (1 - step / total) ** settings.poly_power
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return settings.lr * factor
