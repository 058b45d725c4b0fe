"""Faster convolutions of a frozen network on a CPU: their weights are packed for oneDNN once.

oneDNN needs weights in a blocked layout that depends on the sizes of the input. torch converts them
at every call, which takes a tenth to a quarter of the forward of a large network on small images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_pointwise: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_reorder: Any = getattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", None)


class PackedConv2d(nn.Module):
    """A frozen `nn.Conv2d` on a CPU whose weights are packed for the last size of features.

    It suits features of one size: every change of size packs the weights anew. In half precision
    nothing is packed.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._arguments = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._bias: Tensor | None = None
        if conv.bias is not None:
            self._bias = conv.bias.detach()
        self._weight: Tensor = conv.weight.detach()
        self._packed_for: torch.Size | None = None

    def forward(self, features_NCHW: Tensor) -> Tensor:
        padding, stride, dilation, groups = self._arguments
        if features_NCHW.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            self._unpack()
            return F.conv2d(
                features_NCHW, self._weight, self._bias, stride, padding, dilation, groups
            )
        if self._packed_for != features_NCHW.shape:
            self._unpack()
            self._weight = _reorder(self._weight.to_mkldnn(), *self._arguments, features_NCHW.shape)
            self._packed_for = features_NCHW.shape
        out: Tensor = _pointwise(
            features_NCHW, self._weight, self._bias, *self._arguments, "none", [], ""
        )
        return out

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedConv2d:
        """Apply `.to()`, `.double()` and the like to tensors that are no parameters or buffers."""
        self._unpack()
        self._weight = fn(self._weight)
        if self._bias is not None:
            self._bias = fn(self._bias)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _unpack(self) -> None:
        if self._weight.is_mkldnn:
            self._weight = self._weight.to_dense()
        self._packed_for = None


def pack_convolutions(network: nn.Module) -> None:
    """Replace every convolution that a packed one can stand for; a no-op where torch cannot pack.

    The network must be frozen and on the CPU. The weights of replaced convolutions are no longer in
    its state dict. Convolutions with hooks, or whose weight is computed, stay as they are.
    """
    if _pointwise is None or _reorder is None or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if _can_be_packed(child):
                setattr(parent, name, PackedConv2d(child))


def _can_be_packed(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    if type(module) is not nn.Conv2d or module._forward_hooks or module._forward_pre_hooks:
        return False
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)
