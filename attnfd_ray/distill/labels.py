"""What the labels of an image say about its features: which class a feature belongs to, and the
mean of each class.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attnfd_ray.config.types import IGNORED


def labels_at(labels_NHW: Tensor, features_NCHW: Tensor) -> Tensor:
    """Return the labels at the height and width of the features, each the nearest one."""
    size = features_NCHW.shape[-2:]
    if labels_NHW.shape[-2:] == size:
        return labels_NHW
    # interpolation wants floats, and a float holds a label exactly; `nearest` would take the upper
    # left of the labels that a feature stands for, not the middle
    resized = F.interpolate(labels_NHW[:, None].float(), size=size, mode="nearest-exact")
    return resized[:, 0].to(labels_NHW.dtype)


def class_means(
    features_NCHW: Tensor, labels_NHW: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return means_NKC of each image's features over the pixels of each class, and the counts_NK of
    those pixels.

    Labels are at the size of the features; ignored pixels belong to no class. The mean over no
    pixel is zero.
    """
    num_images, channels = features_NCHW.shape[:2]
    own_class = labels_NHW.flatten(1).long()
    own_class = torch.where(
        own_class == IGNORED, num_classes, own_class
    )  # a class beyond the last, dropped below
    image = torch.arange(num_images, device=labels_NHW.device)[:, None]
    row = (image * (num_classes + 1) + own_class).flatten()
    pixels_PC = features_NCHW.flatten(2).mT.flatten(0, 1)
    sums = pixels_PC.new_zeros(num_images * (num_classes + 1), channels).index_add(
        0, row, pixels_PC
    )
    counts = torch.bincount(row, minlength=len(sums))
    sums_NKC = sums.view(num_images, num_classes + 1, channels)[:, :num_classes]
    counts_NK = counts.view(num_images, num_classes + 1)[:, :num_classes]
    return sums_NKC / counts_NK.clamp(min=1)[:, :, None], counts_NK
