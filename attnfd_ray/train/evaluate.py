"""Scores a network by integer counts over all images, at the resolution of the labels. No ray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from attnfd_ray.config.schema import DataSettings, TrainSettings
from attnfd_ray.errors import NoMetric
from attnfd_ray.train.distributed import all_reduce_sum, broadcast_buffers
from attnfd_ray.train.inference import class_scores, stride
from attnfd_ray.train.metrics import Scores, confusion, scores
from attnfd_ray.train.precision import autocast

_IMAGES_AT_ONCE = 8

Batch = tuple[Tensor, Tensor]


def protocol(data: DataSettings) -> str:
    """Return the name of the mIoU protocol: dataset, split, resolution, input scale, scales, flips.

    Only scores of the same protocol may be compared. The released AttnFD code resizes labels too,
    to a short side of 513 pixels: `resized513`. Sliding windows are named by height x width and
    their stride, as in `sliding513x513+342x342`, and several scales by `-ms0.5,1,1.5`.
    """
    split = data.val_split
    if data.val_limit is not None:
        split += f"[:{data.val_limit}]"
    sizes = {
        "native": "native",
        "resized": f"resized{min(data.crop)}",
        "sliding": "sliding{}x{}+{}x{}".format(*data.crop, *stride(data)),
    }
    size = sizes[data.evaluation]
    if data.input_scale != 1:
        size += f"-input{data.input_scale:g}"
    if data.eval_scales != (1.0,):
        scales = ",".join(f"{scale:g}" for scale in data.eval_scales)
        size += f"-ms{scales}"
    flip = "noflip"
    if data.eval_flip:
        flip = "flip"
    return f"{data.name}/{split}/{size}/{flip}"


def for_test(data: DataSettings) -> DataSettings:
    """Return the settings for scoring the whole test split in the same way as the val split."""
    return data.model_copy(update={"val_split": data.test_split, "val_limit": None})


@torch.no_grad()
def evaluate(
    network: nn.Module,
    batches: Iterable[Batch],
    *,
    num_classes: int,
    device: torch.device,
    data: DataSettings,
    train: TrainSettings,
) -> Scores:
    """Score a network on (image [1, 3, h, w], label [1, H, W]) pairs; each worker brings its own.

    The counts of all workers are added. So every image counts once, and all workers return the same
    scores. Raises NoMetric, on every worker at once, when no labelled pixel exists.
    """
    was_training = network.training
    network.eval()
    broadcast_buffers(network)
    counts_CC = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    for images_NCHW, labels_NHW in _join_equal_sizes(batches):
        with autocast(device, train):
            scores_NCHW = class_scores(network, images_NCHW, data, size=labels_NHW.shape[-2:])
        predictions_NHW = scores_NCHW.argmax(dim=1)
        counts_CC += confusion(labels_NHW, predictions_NHW, num_classes=num_classes)
    network.train(was_training)
    counts_CC = all_reduce_sum(counts_CC)
    if not counts_CC.any():
        raise NoMetric(
            f"no pixel of split '{data.val_split}' of {data.name} has a label that counts, so it "
            "has no mIoU; `attnfd-ray data check FILE --full` says what its labels hold"
        )
    return scores(counts_CC)


def _join_equal_sizes(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Join consecutive images of equal size: one small image at a time leaves a processor idle."""
    group: list[Batch] = []
    for image, label in batches:
        if group:
            first_image, first_label = group[0]
            is_equal = (first_image.shape, first_label.shape) == (image.shape, label.shape)
            if not is_equal or len(group) == _IMAGES_AT_ONCE:
                yield _concatenated(group)
                group = []
        group.append((image, label))
    if group:
        yield _concatenated(group)


def _concatenated(group: list[Batch]) -> Batch:
    images, labels = zip(*group, strict=True)
    return torch.cat(images), torch.cat(labels)
