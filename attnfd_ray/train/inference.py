"""What a network says of whole images: at once or window by window, at one scale or several,
mirrored or not.

Averages over scales and mirror images are of probabilities; windows that overlap are averaged
before, as logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.config.schema import DataSettings


def class_scores(
    network: nn.Module, images_NCHW: Tensor, data: DataSettings, *, size: Sequence[int]
) -> Tensor:
    """Return votes_NCHW of height and width `size`, whose largest channel is the class the network
    says.

    One view gives its logits, several the sum of their probabilities.
    """
    if data.eval_scales == (1.0,) and not data.eval_flip:
        return _at_size(_logits(network, images_NCHW, data), size)
    total = torch.zeros((), device=images_NCHW.device)
    for scale in data.eval_scales:
        view_NCHW = _at_size(
            images_NCHW, [max(1, round(side * scale)) for side in images_NCHW.shape[-2:]]
        )
        total = total + _probabilities(_logits(network, view_NCHW, data), size)
        if data.eval_flip:
            mirrored = _logits(network, view_NCHW.flip(-1), data).flip(-1)
            total = total + _probabilities(mirrored, size)
    return total


def stride(data: DataSettings) -> tuple[int, int]:
    """Return the height and width from one sliding window to the next."""
    height, width = data.crop
    return data.eval_stride or (-(-2 * height // 3), -(-2 * width // 3))


def _logits(network: nn.Module, images_NCHW: Tensor, data: DataSettings) -> Tensor:
    if data.evaluation != "sliding":
        logits_NCHW: Tensor = network(images_NCHW)
        return logits_NCHW
    height, width = images_NCHW.shape[-2:]
    (rows, columns), steps = data.crop, stride(data)
    # 0 is the mean colour; what is said of the padding is cut off again
    padded_NCHW = F.pad(images_NCHW, (0, max(0, columns - width), 0, max(0, rows - height)))
    total, times = None, torch.zeros(padded_NCHW.shape[-2:], device=images_NCHW.device)
    for top in _starts(padded_NCHW.shape[-2], rows, steps[0]):
        for left in _starts(padded_NCHW.shape[-1], columns, steps[1]):
            window = (..., slice(top, top + rows), slice(left, left + columns))
            said_NCHW = _at_size(network(padded_NCHW[window]), data.crop).float()
            if total is None:
                total = said_NCHW.new_zeros((*said_NCHW.shape[:2], *padded_NCHW.shape[-2:]))
            total[window] += said_NCHW
            times[window] += 1
    assert total is not None, "there is at least one window"
    return (total / times)[..., :height, :width]


def _probabilities(logits_NCHW: Tensor, size: Sequence[int]) -> Tensor:
    # in full precision: half a dozen sums of halves would change the winner of many a pixel
    return _at_size(logits_NCHW, size).float().softmax(dim=1)


def _starts(length: int, window: int, step: int) -> list[int]:
    """Return where windows begin so that they cover 0..length; the last ends there."""
    return [*range(0, length - window, step), length - window]


def _at_size(field_NCHW: Tensor, size: Sequence[int]) -> Tensor:
    if list(field_NCHW.shape[-2:]) == list(size):
        return field_NCHW
    return F.interpolate(field_NCHW.float(), size=list(size), mode="bilinear", align_corners=False)
