"""How a network is scored: an integer count over all images, at the resolution of the labels it is
handed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from attnfd_ray.config.schema import DataSettings, TrainSettings
from attnfd_ray.errors import NoMetric
from attnfd_ray.train.distributed import all_reduce_sum, broadcast_buffers
from attnfd_ray.train.inference import class_scores, stride
from attnfd_ray.train.metrics import Scores, confusion, scores

_IMAGES_AT_ONCE = 8

Batch = tuple[Tensor, Tensor]


def protocol(data: DataSettings) -> str:
    """Return the name of how mIoU is measured: split, resolution, flips. Only equal names may be
    compared.

    The released AttnFD code resizes labels too, to a short side of 513 pixels: `resized513`.
    Windows are named by height x width and their stride: `sliding513x513+342x342`; several scales
    by `-ms0.5,1,1.5`.
    """
    split = data.val_split if data.val_limit is None else f"{data.val_split}[:{data.val_limit}]"
    size = {
        "native": "native",
        "resized": f"resized{min(data.crop)}",
        "sliding": "sliding{}x{}+{}x{}".format(*data.crop, *stride(data)),
    }[data.evaluation]
    shrunk = "" if data.input_scale == 1 else f"-input{data.input_scale:g}"
    scales = (
        ""
        if data.eval_scales == (1.0,)
        else "-ms" + ",".join(f"{scale:g}" for scale in data.eval_scales)
    )
    return f"{data.name}/{split}/{size}{shrunk}{scales}/{'flip' if data.eval_flip else 'noflip'}"


def for_test(data: DataSettings) -> DataSettings:
    """Return the settings by which the test split is scored: all of it, otherwise as the val split
    is.
    """
    return data.model_copy(update={"val_split": data.test_split, "val_limit": None})


def autocast(device: torch.device, settings: TrainSettings) -> torch.autocast:
    """Return the context in which a forward pass runs at the asked precision."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(settings.precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


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
    """Score a network on (image [1, 3, h, w], label [1, H, W]) pairs, of which each worker brings
    its own.

    The workers' counts are summed, so that every image counts once and all workers return the same
    scores. Raises NoMetric, on every worker at once, when no pixel counts.
    """
    was_training = network.training
    network.eval()
    broadcast_buffers(network)
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    for images_NCHW, labels_NHW in _same_size(batches):
        with autocast(device, train):
            votes_NCHW = class_scores(network, images_NCHW, data, size=labels_NHW.shape[-2:])
        counts += confusion(labels_NHW, votes_NCHW.argmax(dim=1), num_classes=num_classes)
    network.train(was_training)
    counts = all_reduce_sum(counts)
    if not counts.any():
        raise NoMetric(
            f"no pixel of split '{data.val_split}' of {data.name} has a label that counts, so it "
            "has "
            "no mIoU; `attnfd-ray data check FILE --full` says what its labels hold"
        )
    return scores(counts)


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
