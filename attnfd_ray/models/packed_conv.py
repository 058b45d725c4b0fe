"""Convolutions of a network that no longer learns, their weights laid out for oneDNN once and not
at every call.

oneDNN wants weights in blocks that depend on the sizes it meets. torch lays them out anew each
time; for a large network on small images that is a tenth to a quarter of the forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_pointwise: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_reorder: Any = getattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", None)


class PackedConv2d(nn.Module):
    """A frozen `nn.Conv2d` on a CPU; its weights are packed for the size of features it met last.

    So it suits features of one size: at every change it packs anew, and in half precision it does
    not pack at all.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._arguments = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._bias = None if conv.bias is None else conv.bias.detach()
        self._weight: Tensor = conv.weight.detach()
        self._packed_for: torch.Size | None = None

    def forward(self, features_NCHW: Tensor) -> Tensor:
        padding, stride, dilation, groups = self._arguments
        if features_NCHW.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            self._weight, self._packed_for = self._dense(), None
            return F.conv2d(
                features_NCHW, self._weight, self._bias, stride, padding, dilation, groups
            )
        if self._packed_for != features_NCHW.shape:
            self._weight = _reorder(
                self._dense().to_mkldnn(), *self._arguments, features_NCHW.shape
            )
            self._packed_for = features_NCHW.shape
        out: Tensor = _pointwise(
            features_NCHW, self._weight, self._bias, *self._arguments, "none", [], ""
        )
        return out

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedConv2d:
        """Let `.to()`, `.double()` and their like reach tensors that a module does not know of."""
        self._weight, self._packed_for = fn(self._dense()), None
        self._bias = None if self._bias is None else fn(self._bias)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _dense(self) -> Tensor:
        return self._weight.to_dense() if self._weight.is_mkldnn else self._weight


def pack_convolutions(network: nn.Module) -> None:
    """Replace every convolution that a packed one can stand for; nothing happens where torch cannot
    pack.

    The network must be frozen and on the CPU. Its convolutions' weights leave its state dict.
    Convolutions that something listens to, or whose weight is computed, stay as they are.
    """
    if _pointwise is None or _reorder is None or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Conv2d or child._forward_hooks or child._forward_pre_hooks:
                continue
            if child.padding_mode == "zeros" and not isinstance(child.padding, str):
                setattr(parent, name, PackedConv2d(child))
