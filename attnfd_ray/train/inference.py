"""Class scores of whole images: at once or by sliding window, at several scales, mirrored. No ray.

Scales and mirror images are averaged as probabilities, overlapping windows before that as logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.config.schema import DataSettings


def class_scores(
    network: nn.Module, images_NCHW: Tensor, data: DataSettings, *, size: Sequence[int]
) -> Tensor:
    """Return scores_NCHW of height and width `size`; the predicted class has the highest score.

    Scores are logits for one view of the images, and the sum of probabilities for several.
    """
    if data.eval_scales == (1.0,) and not data.eval_flip:
        return _resized(_logits(network, images_NCHW, data), size)
    total = torch.zeros((), device=images_NCHW.device)
    for scale in data.eval_scales:
        view_size = [max(1, round(side * scale)) for side in images_NCHW.shape[-2:]]
        view_NCHW = _resized(images_NCHW, view_size)
        logits_NCHW = _logits(network, view_NCHW, data)
        total = total + _probabilities(logits_NCHW, size)
        if data.eval_flip:
            mirrored_NCHW = _logits(network, view_NCHW.flip(-1), data)
            total = total + _probabilities(mirrored_NCHW.flip(-1), size)
    return total


def stride(data: DataSettings) -> tuple[int, int]:
    """Return the distance between sliding windows: height and width, pixels."""
    if data.eval_stride:
        return data.eval_stride
    height, width = data.crop
    return _two_thirds(height), _two_thirds(width)


def _two_thirds(length: int) -> int:
    return math.ceil(2 * length / 3)


def _logits(network: nn.Module, images_NCHW: Tensor, data: DataSettings) -> Tensor:
    if data.evaluation != "sliding":
        logits_NCHW: Tensor = network(images_NCHW)
        return logits_NCHW
    return _sliding_logits(network, images_NCHW, data)


def _sliding_logits(network: nn.Module, images_NCHW: Tensor, data: DataSettings) -> Tensor:
    height, width = images_NCHW.shape[-2:]
    rows, columns = data.crop
    row_step, column_step = stride(data)
    # 0 is the mean colour; the logits of the padding are cut off at the end
    right = max(0, columns - width)
    below = max(0, rows - height)
    padded_NCHW = F.pad(images_NCHW, (0, right, 0, below))
    padded_height, padded_width = padded_NCHW.shape[-2:]
    sum_NCHW = None
    count_HW = torch.zeros(padded_height, padded_width, device=images_NCHW.device)
    for top in _starts(padded_height, rows, row_step):
        for left in _starts(padded_width, columns, column_step):
            window = (..., slice(top, top + rows), slice(left, left + columns))
            logits_NCHW = _resized(network(padded_NCHW[window]), data.crop).float()
            if sum_NCHW is None:
                batch_and_classes = logits_NCHW.shape[:2]
                sum_NCHW = logits_NCHW.new_zeros((*batch_and_classes, padded_height, padded_width))
            sum_NCHW[window] += logits_NCHW
            count_HW[window] += 1
    assert sum_NCHW is not None, "there is at least one window"
    return (sum_NCHW / count_HW)[..., :height, :width]


def _probabilities(logits_NCHW: Tensor, size: Sequence[int]) -> Tensor:
    # In float32: adding a few half-precision numbers would change the predicted class of many
    # pixels.
    return _resized(logits_NCHW, size).float().softmax(dim=1)


def _starts(length: int, window: int, step: int) -> list[int]:
    """Return the starts of windows that cover 0..length; the last window ends at `length`."""
    last = length - window
    return [*range(0, last, step), last]


def _resized(images_NCHW: Tensor, size: Sequence[int]) -> Tensor:
    if list(images_NCHW.shape[-2:]) == list(size):
        return images_NCHW
    return F.interpolate(images_NCHW.float(), size=list(size), mode="bilinear", align_corners=False)
