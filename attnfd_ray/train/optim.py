"""Which parameter learns how fast."""

from __future__ import annotations

import torch
from torch import nn

from attnfd_ray.config.schema import OptimSettings
from attnfd_ray.train.task import DistillationTask


def build_optimizer(task: DistillationTask, settings: OptimSettings) -> torch.optim.SGD:
    """Return SGD over the student's backbone (lr) and everything else that learns (lr x
    head_lr_factor).
    """
    backbone = [
        parameter for parameter in task.student.backbone_parameters() if parameter.requires_grad
    ]
    slow = {id(parameter) for parameter in backbone}
    rest = [
        parameter
        for parameter in task.parameters()
        if parameter.requires_grad and id(parameter) not in slow
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
    """Assert that every parameter that wants a gradient is in exactly one group, and no other
    parameter is.
    """
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    wanted = {
        id(parameter): name
        for name, parameter in task.named_parameters()
        if parameter.requires_grad
    }
    assert len(grouped) == len(set(grouped)), "a parameter is in two optimiser groups"
    lost = [name for key, name in wanted.items() if key not in set(grouped)]
    assert not lost, f"in no optimiser group: {', '.join(lost)}"
    assert len(grouped) == len(wanted), "an optimiser group holds a parameter that is not trained"


def set_learning_rate(
    optimizer: torch.optim.Optimizer, settings: OptimSettings, *, step: int, total: int
) -> float:
    """Set every group's rate for optimiser step `step` (from 0) of `total`, and return the
    backbone's.

    A pure function of the position, so that there is no schedule state to save.
    """
    factor = (1 - step / total) ** settings.poly_power if settings.schedule == "poly" else 1.0
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return settings.lr * factor
