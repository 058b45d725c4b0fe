"""What most methods do to a pair of features first: same channels, same size, full precision."""

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
    """An `nn.ModuleDict` with one module for each tap.

    A tap may be a module's path (`encoder.layer2`). torch forbids dots in the names of submodules,
    so they are stored as `/`.

    >>> modules = TapModuleDict({"encoder.layer2": nn.Identity()})
    >>> [tap for tap, _ in modules.items()], list(modules.keys())
    (['encoder.layer2'], ['encoder/layer2'])
    """

    def __setitem__(self, tap: str, module: nn.Module) -> None:
        super().__setitem__(tap.replace(".", "/"), module)

    def __getitem__(self, tap: str) -> nn.Module:
        return super().__getitem__(tap.replace(".", "/"))

    def items(self) -> ItemsView[str, nn.Module]:
        """Return (tap, module), in order."""
        return {name.replace("/", "."): module for name, module in super().items()}.items()


def connector(student_channels: int, teacher_channels: int) -> nn.Sequential:
    """Return a 1x1 convolution with BatchNorm from the student's to the teacher's channels.

    It maps features_NCHW to the same height and width. The convolution has no bias; its first
    weights are N(0, 2 / teacher_channels), from torch's global generator.

    >>> connector(8, 16)(torch.ones(2, 8, 5, 6)).shape
    torch.Size([2, 16, 5, 6])
    """
    conv = nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False)
    nn.init.normal_(conv.weight, std=(2.0 / teacher_channels) ** 0.5)
    return nn.Sequential(conv, nn.BatchNorm2d(teacher_channels))


def resized(student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
    """Return the student's features at the teacher's height and width, bilinearly interpolated.

    >>> resized(torch.ones(2, 8, 5, 6), torch.ones(2, 16, 10, 12)).shape
    torch.Size([2, 8, 10, 12])
    """
    size = teacher_NCHW.shape[-2:]
    if student_NCHW.shape[-2:] == size:
        return student_NCHW
    return F.interpolate(student_NCHW, size=size, mode="bilinear", align_corners=False)


def in_full_precision(distance: Distance[Options]) -> Distance[Options]:
    """Decorate a distance of two features so that it computes in fp32 at least.

    Squares and exponentials overflow in half precision. Autocast is off inside; float64 stays.

    >>> @in_full_precision
    ... def squared(student_NCHW, teacher_NCHW):
    ...     return (student_NCHW - teacher_NCHW).square().sum()
    >>> half = torch.full((1, 1, 1, 1), 1e4, dtype=torch.float16)
    >>> squared(half, 0 * half)
    tensor(100000000.)
    """

    @wraps(distance)
    def computed(
        student: Tensor, teacher: Tensor, /, *args: Options.args, **kwargs: Options.kwargs
    ) -> Tensor:
        with torch.autocast(student.device.type, enabled=False):
            return distance(_at_least_fp32(student), _at_least_fp32(teacher), *args, **kwargs)

    return computed


def _at_least_fp32(tensor: Tensor) -> Tensor:
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.float()
    return tensor
