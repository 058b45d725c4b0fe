"""What is done to an image and its mask together, from the file's bytes to the network's input.

Image and mask are resized apart, each in its own way: a mask that is interpolated like an image grows classes nobody
painted. All chance comes from the generator passed in.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from attnfd_ray.config.schema import DataSettings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_BLUR_REACH = 3
"""Pixels either side that a blur looks at: three sigmas of the widest."""


def train_transform(
    image_CHW: Tensor, label_HW: Tensor, data: DataSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return a random view, `data.crop` large: image_3hw (float32, normalised) and label_hw (int64).

    Takes uint8 of any size. In turn: shrink by input_scale; scale at random; crop; blur; normalise; pad at the right
    and at the bottom, the image with 0 (ImageNet's mean) and the label with pad_label; flip. To crop before padding
    is the same as after, and keeps the blur from mixing image and padding.
    """
    image_CHW, label_1HW = _scaled(image_CHW, label_HW[None], data.input_scale)
    image_CHW, label_1HW = _scaled(image_CHW, label_1HW, _random_factor(image_CHW, data, rng))
    image_CHW, label_1HW = _random_crop(image_CHW, label_1HW, data.crop, rng)
    if rng.random() < data.blur:
        image_CHW = _blurred(image_CHW, sigma=1 - rng.random())  # in (0, 1]: a sigma of 0 is refused
    image_CHW, label_1HW = _padded(normalised(image_CHW), label_1HW, data.crop, data.pad_label)
    if rng.random() < data.flip:
        image_CHW, label_1HW = image_CHW.flip(-1), label_1HW.flip(-1)
    return image_CHW.contiguous(), label_1HW[0].contiguous().long()


def eval_transform(image_CHW: Tensor, label_HW: Tensor, data: DataSettings) -> tuple[Tensor, Tensor]:
    """Return image_3hw (float32, normalised, shrunk by input_scale) and label_HW (int64) in its native size.

    With `evaluation: resized` both have the crop's short side instead, the label by its nearest pixels: the protocol of
    the released AttnFD code (custom_transforms.py:152-167 there).
    """
    if data.evaluation == "resized":
        side = [min(data.crop)]
        image_CHW = F.resize(image_CHW, side, interpolation=InterpolationMode.BILINEAR, antialias=True)
        label_1HW = F.resize(label_HW[None], side, interpolation=InterpolationMode.NEAREST_EXACT)
        return normalised(image_CHW), label_1HW[0].long()
    return normalised(_resized(image_CHW, data.input_scale)), label_HW.long()


def normalised(image_CHW: Tensor) -> Tensor:
    """Return a uint8 image as float32 with ImageNet's mean at 0 and its spread at 1."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image_CHW.float() / 255 - mean) / std


def _random_factor(image_CHW: Tensor, data: DataSettings, rng: np.random.Generator) -> float:
    factor = float(rng.uniform(*data.scale))
    return factor if data.scale_base is None else factor * data.scale_base / min(image_CHW.shape[-2:])


def _scaled(image_CHW: Tensor, label_1HW: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    return _resized(image_CHW, factor), _resized(label_1HW, factor, InterpolationMode.NEAREST_EXACT)


def _resized(field_CHW: Tensor, factor: float, mode: InterpolationMode = InterpolationMode.BILINEAR) -> Tensor:
    """Return the field `factor` times as large, at least a pixel."""
    size = [max(1, round(side * factor)) for side in field_CHW.shape[-2:]]
    if size == list(field_CHW.shape[-2:]):
        return field_CHW
    resized: Tensor = F.resize(field_CHW, size, interpolation=mode, antialias=mode is InterpolationMode.BILINEAR)
    return resized


def _random_crop(
    image_CHW: Tensor, label_1HW: Tensor, crop: tuple[int, int], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return a window of the crop's size, or all there is where the image is smaller."""
    spare = (max(0, side - wanted) for side, wanted in zip(image_CHW.shape[-2:], crop, strict=True))
    top, left = (int(rng.integers(length + 1)) for length in spare)
    window = (..., slice(top, top + crop[0]), slice(left, left + crop[1]))
    return image_CHW[window], label_1HW[window]


def _blurred(image_CHW: Tensor, sigma: float) -> Tensor:
    reach = min(_BLUR_REACH, *(side - 1 for side in image_CHW.shape[-2:]))  # the border is mirrored: needs that much
    blurred: Tensor = F.gaussian_blur(image_CHW, [2 * reach + 1] * 2, [sigma, sigma])
    return blurred


def _padded(image_CHW: Tensor, label_1HW: Tensor, crop: tuple[int, int], pad_label: int) -> tuple[Tensor, Tensor]:
    below, right = (wanted - side for side, wanted in zip(image_CHW.shape[-2:], crop, strict=True))
    if below == right == 0:
        return image_CHW, label_1HW
    border = (0, right, 0, below)
    pad = torch.nn.functional.pad
    return pad(image_CHW, border, value=0.0), pad(label_1HW, border, value=pad_label)
