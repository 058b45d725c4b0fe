"""What is done to an image and its mask together, from the file's bytes to the network's input.

Image and mask are resized apart, each in its own way: a mask that is interpolated like an image
grows classes nobody painted. All stays in bytes, with an image's channels last in memory, until
`normalised`: a batch on its way to a device is a quarter of the floats. All chance comes from the
generator passed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from attnfd_ray.config.schema import DataSettings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MEAN_COLOUR = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
"""What padding looks like: the bytes whose normalised values are next to 0."""


def train_transform(
    image_CHW: Tensor, label_HW: Tensor, data: DataSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return a random view, `data.crop` large: image_3hw and label_hw, uint8 as what it is made of.

    In turn: shrink by input_scale; take what a crop shows of the image at a random scale, and
    resize only that; blur; pad at the right and at the bottom, the image with MEAN_COLOUR and the
    label with pad_label; flip. To pad last keeps the blur from mixing image and padding.
    """
    image_CHW, label_HW = (
        _resized(image_CHW, data.input_scale),
        _resized_label(label_HW, data.input_scale),
    )
    view = _random_view(label_HW.shape, data, rng)
    image_CHW = resized_image(image_CHW[:, *view.window], view.size)
    label_HW = resized_label(label_HW[view.window], view.size)
    if rng.random() < data.blur:
        image_CHW = _blurred(
            image_CHW, sigma=1 - rng.random()
        )  # in (0, 1]: a sigma of 0 is refused
    flip = rng.random() < data.flip
    return (
        _padded(
            image_CHW,
            data.crop,
            torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None],
            flip=flip,
        ),
        _padded(label_HW, data.crop, torch.tensor(data.pad_label, dtype=torch.uint8), flip=flip),
    )


def eval_transform(
    image_CHW: Tensor, label_HW: Tensor, data: DataSettings
) -> tuple[Tensor, Tensor]:
    """Return image_3hw, shrunk by input_scale, and label_HW in its native size, uint8 as they come.

    With `evaluation: resized` both have the crop's short side instead, the label by its nearest
    pixels: the protocol of the released AttnFD code (custom_transforms.py:152-167 there).
    """
    if data.evaluation == "resized":
        # the long side is cut off, as torchvision's Resize does
        size = [int(min(data.crop) * side / min(label_HW.shape)) for side in label_HW.shape]
        return resized_image(image_CHW, size).contiguous(), resized_label(label_HW, size)
    return _resized(image_CHW, data.input_scale).contiguous(), label_HW


def normalised(image_CHW: Tensor) -> Tensor:
    """Return uint8 images, one or a batch, as float32 with ImageNet's mean at 0 and its spread at
    1.
    """
    factor_311, shift_311 = _imagenet(image_CHW.device)
    return image_CHW.float().mul_(factor_311).sub_(shift_311)


@cache  # made on a device anew, they would hold it up for every batch
def _imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return 1 / (255 * std), mean / std


def resized_image(image_CHW: Tensor, size: Sequence[int]) -> Tensor:
    """Return the image at another size, smoothed where it shrinks."""
    if list(image_CHW.shape[1:]) == list(size):
        return image_CHW
    # of channels that lie last in memory the resizing is twice as fast, but not where rows are cut
    # out of longer ones
    rows_HWC = torch.from_numpy(np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy()))
    resized: Tensor = F.resize(
        rows_HWC.permute(2, 0, 1),
        list(size),
        interpolation=InterpolationMode.BILINEAR,
        antialias=True,
    )
    return resized


def resized_label(label_HW: Tensor, size: Sequence[int]) -> Tensor:
    """Return the labels of the nearest pixels, centre to centre: Pillow's NEAREST, torch's
    nearest-exact.
    """
    if list(label_HW.shape) == list(size):
        return label_HW
    rows, columns = (
        (np.arange(new) + 0.5) * (old / new) for old, new in zip(label_HW.shape, size, strict=True)
    )
    return torch.from_numpy(label_HW.numpy()[rows.astype(np.intp)][:, columns.astype(np.intp)])


class _View(NamedTuple):
    """The part of an image that is looked at, and the size it gets."""

    window: tuple[slice, slice]
    size: tuple[int, int]


def _random_view(shape: Sequence[int], data: DataSettings, rng: np.random.Generator) -> _View:
    """Return what a crop shows of an image of `shape` at a random scale: all of it where it is
    smaller than the crop.

    A window is whole pixels of the image, so a scale is met to within half a pixel of it.
    """
    factor = float(rng.uniform(*data.scale))
    if data.scale_base is not None:
        factor *= data.scale_base / min(shape)
    window, size = [], []
    for side, wanted in zip(shape, data.crop, strict=True):
        scaled = max(1, round(side * factor))
        shown = side if scaled <= wanted else max(1, round(wanted * side / scaled))
        start = int(rng.integers(side - shown + 1))
        window.append(slice(start, start + shown))
        size.append(min(scaled, wanted))
    return _View((window[0], window[1]), (size[0], size[1]))


def _resized(image_CHW: Tensor, factor: float) -> Tensor:
    return resized_image(image_CHW, _scaled_size(tuple(image_CHW.shape[1:]), factor))


def _resized_label(label_HW: Tensor, factor: float) -> Tensor:
    return resized_label(label_HW, _scaled_size(tuple(label_HW.shape), factor))


def _scaled_size(shape: tuple[int, ...], factor: float) -> list[int]:
    return [max(1, round(side * factor)) for side in shape]


def _blurred(image_CHW: Tensor, sigma: float) -> Tensor:
    """Return the image after a Gaussian blur, its border mirrored: torchvision's gaussian_blur to a
    grey level.

    Rows and columns one after the other, which for these few pixels takes half to a sixth of
    torchvision's time.
    """
    # three sigmas, but the mirrored border needs as many pixels
    reach = min(math.ceil(3 * sigma), *(side - 1 for side in image_CHW.shape[-2:]))
    weights = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(reach + 1)]
    total = 2 * sum(weights) - weights[0]
    blurred_CHW = torch.nn.functional.pad(
        image_CHW.contiguous().float(), [reach] * 4, mode="reflect"
    )
    for axis in (-1, -2):
        length = blurred_CHW.shape[axis] - 2 * reach
        mixed = blurred_CHW.narrow(axis, reach, length) * (weights[0] / total)
        for distance in range(1, reach + 1):
            for start in (reach - distance, reach + distance):
                mixed.add_(blurred_CHW.narrow(axis, start, length), alpha=weights[distance] / total)
        blurred_CHW = mixed
    return blurred_CHW.round_().byte()


def _padded(field_HW: Tensor, crop: tuple[int, int], fill: Tensor, *, flip: bool) -> Tensor:
    """Return a field (.., h, w) with `fill` below and at the right of it, up to the crop's size;
    then mirrored.
    """
    height, width = field_HW.shape[-2:]
    padded = np.empty((*field_HW.shape[:-2], *crop), dtype=np.uint8)
    unflipped = padded[..., ::-1] if flip else padded
    unflipped[..., height:, :], unflipped[..., width:] = fill.numpy(), fill.numpy()
    unflipped[..., :height, :width] = field_HW.numpy()
    return torch.from_numpy(padded)
