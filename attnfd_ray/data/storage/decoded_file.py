"""The file of one decoded sample: height and width, the image channels-last, then the label."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

_HEADER_BYTES = 16  # height and width; keeps the image aligned
_IMAGE_CHANNELS = 3
_BYTES_PER_PIXEL = _IMAGE_CHANNELS + 1  # the label is one byte

Decoded = tuple[Tensor, Tensor]
"""image_CHW and label_HW, uint8."""


def size_bytes(label_HW: Tensor) -> int:
    """Return the size of the file of a sample with this label."""
    return _HEADER_BYTES + _BYTES_PER_PIXEL * label_HW.numel()


def write_decoded(file: BinaryIO, image_CHW: Tensor, label_HW: Tensor) -> None:
    """Write a decoded sample to an open file."""
    file.write(np.array(label_HW.shape, dtype="<u8").tobytes())
    file.write(np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy()).data)
    file.write(np.ascontiguousarray(label_HW.numpy()).data)


def map_decoded(path: Path) -> Decoded | None:
    """Return a decoded sample, mapped into memory, or None if its file is missing or damaged.

    Only the pages that are accessed are read. Writing to the tensors does not change the file.
    """
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):  # ValueError: the file is empty
        return None
    if len(content) < _HEADER_BYTES:
        return None
    height, width = np.frombuffer(content, dtype="<u8", count=2).tolist()
    if len(content) != _HEADER_BYTES + _BYTES_PER_PIXEL * height * width:
        return None
    # Two buffers: a tensor that is sent to another process takes its whole buffer along.
    image_bytes = _IMAGE_CHANNELS * height * width
    image = _bytes_of(content, _HEADER_BYTES, image_bytes)
    label = _bytes_of(content, _HEADER_BYTES + image_bytes, height * width)
    image_HWC = image.view(height, width, _IMAGE_CHANNELS)
    return image_HWC.permute(2, 0, 1), label.view(height, width)


def _bytes_of(content: mmap.mmap, start: int, count: int) -> Tensor:
    return torch.frombuffer(content, dtype=torch.uint8, offset=start, count=count)
