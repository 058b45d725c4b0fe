"""How a network is scored: whole images, one scale, no flip, at the resolution of the labels it is handed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.config.schema import DataSettings, TrainSettings
from attnfd_ray.train.distributed import share_buffers, sum_over_workers
from attnfd_ray.train.metrics import Scores, confusion, scores

_IMAGES_AT_ONCE = 8

Batch = tuple[Tensor, Tensor]


def protocol(data: DataSettings) -> str:
    """Return the name of how mIoU is measured: split, resolution, flips. Only equal names may be compared.

    The released AttnFD code resizes labels too, to a short side of 513 pixels: `resized513`.
    """
    split = data.val_split if data.val_limit is None else f"{data.val_split}[:{data.val_limit}]"
    shrunk = "" if data.input_scale == 1 else f"-input{data.input_scale:g}"
    size = "native" if data.evaluation == "native" else f"resized{min(data.crop)}"
    return f"{data.name}/{split}/{size}{shrunk}/noflip"


def autocast(device: torch.device, settings: TrainSettings) -> torch.autocast:
    """Return the context in which a forward pass runs at the asked precision."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(settings.precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@torch.no_grad()
def evaluate(
    network: nn.Module, batches: Iterable[Batch], *, num_classes: int, device: torch.device, train: TrainSettings
) -> Scores:
    """Score a network on (image [1, 3, h, w], label [1, H, W]) pairs, of which each worker brings its own.

    The workers' counts are summed, so that every image counts once and all workers return the same scores.
    """
    was_training = network.training
    network.eval()
    share_buffers(network)
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    for images_NCHW, labels_NHW in _same_size(batches):
        images_NCHW, labels_NHW = images_NCHW.to(device), labels_NHW.to(device)
        with autocast(device, train):
            logits_NCHW = network(images_NCHW)
        if logits_NCHW.shape[-2:] != labels_NHW.shape[-2:]:
            logits_NCHW = F.interpolate(
                logits_NCHW.float(), size=labels_NHW.shape[-2:], mode="bilinear", align_corners=False
            )
        counts += confusion(labels_NHW, logits_NCHW.argmax(dim=1), num_classes=num_classes)
    network.train(was_training)
    return scores(sum_over_workers(counts))


def _same_size(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Join neighbours of equal size, since small images one by one leave a processor idle."""
    held: list[Batch] = []
    for image, label in batches:
        alike = held and (held[0][0].shape, held[0][1].shape) == (image.shape, label.shape)
        if held and (not alike or len(held) == _IMAGES_AT_ONCE):
            yield torch.cat([pair[0] for pair in held]), torch.cat([pair[1] for pair in held])
            held = []
        held.append((image, label))
    if held:
        yield torch.cat([pair[0] for pair in held]), torch.cat([pair[1] for pair in held])
