"""Convolutions of a network that no longer learns, their weights laid out for oneDNN once and not at every call.

oneDNN wants weights in blocks that depend on the sizes it meets. torch lays them out anew each time; for a large
network on small images that is a quarter of the forward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_pointwise: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_reorder: Any = getattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", None)


class PackedConv2d(nn.Module):
    """A frozen `nn.Conv2d` on a CPU; its weights are packed for the size of features it met last."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._arguments = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._bias = conv.bias
        self._weight: Tensor = conv.weight.detach()
        self._packed_for: torch.Size | None = None

    def forward(self, features_NCHW: Tensor) -> Tensor:
        padding, stride, dilation, groups = self._arguments
        if features_NCHW.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return F.conv2d(features_NCHW, self._dense(), self._bias, stride, padding, dilation, groups)
        if self._packed_for != features_NCHW.shape:
            self._weight = _reorder(self._dense().to_mkldnn(), *self._arguments, features_NCHW.shape)
            self._packed_for = features_NCHW.shape
        out: Tensor = _pointwise(features_NCHW, self._weight, self._bias, *self._arguments, "none", [], "")
        return out

    def _dense(self) -> Tensor:
        return self._weight.to_dense() if self._weight.is_mkldnn else self._weight


def pack_convolutions(network: nn.Module) -> None:
    """Replace every convolution that a packed one can stand for; nothing happens where torch cannot pack.

    The network must be frozen and on the CPU. Its convolutions' weights leave its state dict, and stay on the CPU.
    """
    if _pointwise is None or _reorder is None or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d and child.padding_mode == "zeros" and not isinstance(child.padding, str):
                setattr(parent, name, PackedConv2d(child))
