"""What most methods do to a pair of features before they compare them: same channels, same size,
full precision.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView
from functools import wraps
from typing import Concatenate, ParamSpec

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Options = ParamSpec("Options")
Distance = Callable[Concatenate[Tensor, Tensor, Options], Tensor]


class TapModuleDict(nn.ModuleDict):
    """A module for each tap. A tap may be a module's path, and torch forbids dots in names, so they
    are kept as `/`.
    """

    def __setitem__(self, tap: str, module: nn.Module) -> None:
        super().__setitem__(tap.replace(".", "/"), module)

    def __getitem__(self, tap: str) -> nn.Module:
        return super().__getitem__(tap.replace(".", "/"))

    def items(self) -> ItemsView[str, nn.Module]:
        """Return (tap, module), in order."""
        return {name.replace("/", "."): module for name, module in super().items()}.items()


def connector(student_channels: int, teacher_channels: int) -> nn.Sequential:
    """Return a 1x1 convolution with BatchNorm that brings the student's channels to the
    teacher's.
    """
    conv = nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False)
    nn.init.normal_(conv.weight, std=(2.0 / teacher_channels) ** 0.5)
    return nn.Sequential(conv, nn.BatchNorm2d(teacher_channels))


def resized(student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
    """Return the student's features at the teacher's height and width."""
    size = teacher_NCHW.shape[-2:]
    if student_NCHW.shape[-2:] == size:
        return student_NCHW
    return F.interpolate(student_NCHW, size=size, mode="bilinear", align_corners=False)


def in_full_precision(distance: Distance[Options]) -> Distance[Options]:
    """Let a distance of two features compute in fp32 at least: squares and exponentials of half
    precision overflow.
    """

    @wraps(distance)
    def computed(
        student: Tensor, teacher: Tensor, /, *args: Options.args, **kwargs: Options.kwargs
    ) -> Tensor:
        with torch.autocast(student.device.type, enabled=False):
            return distance(_at_least_fp32(student), _at_least_fp32(teacher), *args, **kwargs)

    return computed


def _at_least_fp32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
