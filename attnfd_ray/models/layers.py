"""Channel counts by width, and first weights; used by every network here. No settings, no files."""

from __future__ import annotations

from torch import nn


def scaled(channels: int, width: float) -> int:
    """Return `channels` x `width`: exact at width 1, else the nearest multiple of 8, at least 8."""
    if width == 1:
        return channels
    return max(8, 8 * int(channels * width / 8 + 0.5))


def initialise(network: nn.Module) -> None:
    """Give `network` its first weights.

    Convolutions get Kaiming normal weights (fan in) and zero biases, BatchNorms 1 and 0. Weights
    are drawn from torch's global generator, module by module in order of definition, so the same
    seed gives the same weights. It is fan in, because the fan out of a depthwise convolution counts
    channels that it never mixes.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
