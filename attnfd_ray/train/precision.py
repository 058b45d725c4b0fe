"""Precision and memory layout of forward passes. No ray."""

from __future__ import annotations

import torch

from attnfd_ray.config.schema import TrainSettings

_HALF_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, settings: TrainSettings) -> torch.autocast:
    """Return the context in which a forward pass runs in the precision of the settings."""
    dtype = _HALF_TYPES.get(settings.precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def memory_layout(settings: TrainSettings, device: torch.device) -> torch.memory_format:
    """Return the memory layout of weights. Convolutions give their features the same one."""
    channels_last = settings.channels_last
    if channels_last == "auto":
        channels_last = device.type == "cpu" or settings.precision != "fp32"
    if channels_last:
        return torch.channels_last
    return torch.contiguous_format
