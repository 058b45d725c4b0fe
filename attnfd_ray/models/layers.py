"""The few things every network here is made with: channel counts by width, and first weights. No
settings, no files.
"""

from __future__ import annotations

from torch import nn


def scaled(channels: int, width: float) -> int:
    """Return `channels` x `width`: exact at width 1, else the nearest multiple of 8, at least 8."""
    if width == 1:
        return channels
    return max(8, 8 * int(channels * width / 8 + 0.5))


def initialise(network: nn.Module) -> None:
    """Give `network` its first weights: Kaiming normal convolutions (fan in), zero biases,
    BatchNorm 1 and 0.

    Draws from torch's global generator only, module by module in order of definition: the same
    seed, the same weights. Fan in, because a depthwise convolution's fan out counts channels that
    it never mixes.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
