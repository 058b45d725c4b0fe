"""The joint transforms of an image and its mask, from decoded bytes to the network's input.

Image and mask are resized separately: interpolating a mask like an image would create class ids
that are not in it. Everything stays bytes, with an image's channels last in memory, until
`normalised`: a batch of bytes is a quarter of the floats to transfer to a device. All randomness
comes from the generator passed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from attnfd_ray.config.schema import DataSettings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MEAN_COLOUR = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
"""The colour of padding: the bytes whose normalised values are closest to 0."""


def train_transform(
    image_CHW: Tensor,
    label_HW: Tensor,
    data: DataSettings,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Return a random view of `data.crop` pixels: image_3hw and label_hw, uint8 as the input.

    The steps, in order:

    1. Shrink by input_scale.
    2. Draw a random scale and a random window, and resize only what the crop shows.
    3. Blur.
    4. Pad right and below, the image with MEAN_COLOUR and the label with pad_label. Padding after
       the blur keeps image and padding from mixing.
    5. Flip.
    """
    image_CHW = _shrunk_image(image_CHW, data.input_scale)
    label_HW = _shrunk_label(label_HW, data.input_scale)
    view = _random_view(label_HW.shape, data, rng)
    image_CHW = resized_image(image_CHW[:, *view.window], view.size)
    label_HW = resized_label(label_HW[view.window], view.size)
    if rng.random() < data.blur:
        sigma = 1 - rng.random()  # in (0, 1]: sigma 0 is invalid
        image_CHW = _blurred(image_CHW, sigma)
    flip = rng.random() < data.flip
    image_fill = torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None]
    label_fill = torch.tensor(data.pad_label, dtype=torch.uint8)
    return (
        _padded(image_CHW, data.crop, image_fill, flip=flip),
        _padded(label_HW, data.crop, label_fill, flip=flip),
    )


def eval_transform(
    image_CHW: Tensor,
    label_HW: Tensor,
    data: DataSettings,
) -> tuple[Tensor, Tensor]:
    """Return image_3hw, shrunk by input_scale, and label_HW in its native size, uint8.

    With `evaluation: resized`, both are resized to the crop's short side, the label by nearest
    pixels: the protocol of the released AttnFD code (its custom_transforms.py:152-167).
    """
    if data.evaluation == "resized":
        # The long side is rounded down, as torchvision's Resize does.
        crop_side = min(data.crop)
        short_side = min(label_HW.shape)
        size = [int(crop_side * side / short_side) for side in label_HW.shape]
        return resized_image(image_CHW, size).contiguous(), resized_label(label_HW, size)
    return _shrunk_image(image_CHW, data.input_scale).contiguous(), label_HW


def normalised(image_CHW: Tensor) -> Tensor:
    """Return uint8 images, one or a batch, as float32 with ImageNet's mean 0 and its std 1."""
    factor_311, shift_311 = _imagenet(image_CHW.device)
    return image_CHW.float().mul_(factor_311).sub_(shift_311)


@cache  # creating them on a device for every batch would stall it
def _imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the factor and the shift that normalise bytes."""
    mean_311 = torch.tensor(IMAGENET_MEAN, device=device).view(3, 1, 1)
    std_311 = torch.tensor(IMAGENET_STD, device=device).view(3, 1, 1)
    return 1 / (255 * std_311), mean_311 / std_311


def resized_image(image_CHW: Tensor, size: Sequence[int]) -> Tensor:
    """Return the image in another size (height, width), antialiased where it shrinks."""
    if list(image_CHW.shape[1:]) == list(size):
        return image_CHW
    # Resizing is twice as fast with channels last in memory, but only if the rows are contiguous.
    image_HWC = np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy())
    resized: Tensor = F.resize(
        torch.from_numpy(image_HWC).permute(2, 0, 1),
        list(size),
        interpolation=InterpolationMode.BILINEAR,
        antialias=True,
    )
    return resized


def resized_label(label_HW: Tensor, size: Sequence[int]) -> Tensor:
    """Return the labels of the nearest pixels, from centre to centre.

    This is Pillow's NEAREST and torch's nearest-exact.
    """
    if list(label_HW.shape) == list(size):
        return label_HW
    height, width = label_HW.shape
    rows = _nearest(height, size[0])
    columns = _nearest(width, size[1])
    return torch.from_numpy(label_HW.numpy()[rows][:, columns])


def _nearest(old_side: int, new_side: int) -> NDArray[np.intp]:
    """Return, for each pixel of a new side, the index of the nearest pixel of the old one."""
    centres = (np.arange(new_side) + 0.5) * (old_side / new_side)
    return centres.astype(np.intp)


class _View(NamedTuple):
    """A window (rows, columns) of an image, and the size (height, width) it is resized to."""

    window: tuple[slice, slice]
    size: tuple[int, int]


def _random_view(
    shape: Sequence[int],
    data: DataSettings,
    rng: np.random.Generator,
) -> _View:
    """Return what a crop shows of an image of `shape` at a random scale.

    That is the whole image where it is smaller than the crop. A window is whole pixels of the
    image, so the scale is exact only to half a pixel.
    """
    factor = float(rng.uniform(*data.scale))
    if data.scale_base is not None:
        factor *= data.scale_base / min(shape)
    height, width = shape
    crop_height, crop_width = data.crop
    rows, new_height = _random_span(height, crop_height, factor, rng)
    columns, new_width = _random_span(width, crop_width, factor, rng)
    return _View((rows, columns), (new_height, new_width))


def _random_span(
    side: int,
    crop_side: int,
    factor: float,
    rng: np.random.Generator,
) -> tuple[slice, int]:
    """Return which pixels of a side a crop shows at a scale, and how many they become."""
    scaled = max(1, round(side * factor))
    shown = side
    if scaled > crop_side:
        shown = max(1, round(crop_side * side / scaled))
    start = int(rng.integers(side - shown + 1))
    return slice(start, start + shown), min(scaled, crop_side)


def _shrunk_image(image_CHW: Tensor, factor: float) -> Tensor:
    size = _scaled_size(image_CHW.shape[1:], factor)
    return resized_image(image_CHW, size)


def _shrunk_label(label_HW: Tensor, factor: float) -> Tensor:
    size = _scaled_size(label_HW.shape, factor)
    return resized_label(label_HW, size)


def _scaled_size(shape: Sequence[int], factor: float) -> list[int]:
    return [max(1, round(side * factor)) for side in shape]


def _blurred(image_CHW: Tensor, sigma: float) -> Tensor:
    """Return the image after a Gaussian blur with a mirrored border.

    The result equals torchvision's gaussian_blur to one grey level. Filtering rows and columns one
    after the other takes a sixth to a half of torchvision's time for so few pixels.
    """
    # Three sigmas, but a mirrored border needs that many pixels.
    height, width = image_CHW.shape[-2:]
    reach = min(math.ceil(3 * sigma), height - 1, width - 1)
    weights = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(reach + 1)]
    total = 2 * sum(weights) - weights[0]
    blurred_CHW = torch.nn.functional.pad(
        image_CHW.contiguous().float(), [reach] * 4, mode="reflect"
    )
    for axis in (-1, -2):
        length = blurred_CHW.shape[axis] - 2 * reach
        mixed = blurred_CHW.narrow(axis, reach, length) * (weights[0] / total)
        for distance in range(1, reach + 1):
            weight = weights[distance] / total
            before = blurred_CHW.narrow(axis, reach - distance, length)
            after = blurred_CHW.narrow(axis, reach + distance, length)
            mixed.add_(before, alpha=weight)
            mixed.add_(after, alpha=weight)
        blurred_CHW = mixed
    return blurred_CHW.round_().byte()


def _padded(
    field_HW: Tensor,
    crop: tuple[int, int],
    fill: Tensor,
    *,
    flip: bool,
) -> Tensor:
    """Return a field (.., h, w), padded below and right up to the crop's size, then mirrored."""
    height, width = field_HW.shape[-2:]
    channels = field_HW.shape[:-2]
    padded = np.empty((*channels, *crop), dtype=np.uint8)
    unflipped = padded
    if flip:
        unflipped = padded[..., ::-1]
    unflipped[..., height:, :] = fill.numpy()
    unflipped[..., width:] = fill.numpy()
    unflipped[..., :height, :width] = field_HW.numpy()
    return torch.from_numpy(padded)
