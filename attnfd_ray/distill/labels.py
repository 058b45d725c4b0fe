"""Labels at the size of features, and the mean feature of each class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attnfd_ray.config.types import IGNORED


def labels_at(labels_NHW: Tensor, features_NCHW: Tensor) -> Tensor:
    """Return the labels at the features' height and width, each the nearest one."""
    size = features_NCHW.shape[-2:]
    if labels_NHW.shape[-2:] == size:
        return labels_NHW
    # Interpolation needs floats, and a float holds a label exactly. `nearest` would take the upper
    # left of the labels under a feature, `nearest-exact` takes the middle one.
    resized_N1HW = F.interpolate(labels_NHW[:, None].float(), size=size, mode="nearest-exact")
    return resized_N1HW[:, 0].to(labels_NHW.dtype)


def class_means(
    features_NCHW: Tensor, labels_NHW: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return means_NKC of each image's features over the pixels of each class, and counts_NK.

    `counts_NK` are the numbers of those pixels. Labels are at the size of the features. Ignored
    pixels belong to no class. The mean over no pixel is zero.
    """
    num_images, channels = features_NCHW.shape[:2]
    num_rows = num_classes + 1  # ignored pixels go into a row after the last class, dropped below
    own_class_NP = labels_NHW.flatten(1).long()
    own_class_NP = torch.where(own_class_NP == IGNORED, num_classes, own_class_NP)
    image_N1 = torch.arange(num_images, device=labels_NHW.device)[:, None]
    row = (image_N1 * num_rows + own_class_NP).flatten()
    pixels_PC = features_NCHW.flatten(2).mT.flatten(0, 1)
    sums = pixels_PC.new_zeros(num_images * num_rows, channels).index_add(0, row, pixels_PC)
    counts = torch.bincount(row, minlength=len(sums))
    sums_NKC = sums.view(num_images, num_rows, channels)[:, :num_classes]
    counts_NK = counts.view(num_images, num_rows)[:, :num_classes]
    return sums_NKC / counts_NK.clamp(min=1)[:, :, None], counts_NK
