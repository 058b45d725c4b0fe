"""A network is scored on every image once, at the size of its label, by any number of workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from train_runs import CPU, VAL_IMAGES, datasets, on_workers, plain

from attnfd_ray.config.schema import DataSettings, ExperimentSettings, ModelSettings, TrainSettings
from attnfd_ray.data.loading.loader import val_batches
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.errors import NoMetric
from attnfd_ray.models import build_model
from attnfd_ray.train.distributed import rank, world_size
from attnfd_ray.train.evaluate import evaluate, protocol
from attnfd_ray.train.metrics import Scores, scores

Batch = tuple[Tensor, Tensor]


def network(seed: int, num_classes: int) -> nn.Module:
    """Return a network of random weights; another seed gives other predictions."""
    torch.manual_seed(seed)
    model = build_model(ModelSettings(width=0.125), num_classes=num_classes)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return model


def counts_and_scores(
    settings: ExperimentSettings, seed_by_rank: bool = False
) -> tuple[Tensor, Scores]:
    """Score a network on this worker's part of the val split.

    Return the summed confusion matrix and the scores.
    """
    _, val_set = datasets(settings)
    model = network(0, val_set.num_classes)
    if seed_by_rank:  # statistics that differ from worker to worker, as after a step
        for buffer in model.buffers():
            buffer.add_(rank())
    readers = ReaderPool([val_set])
    batches = val_batches(
        val_set, settings.data, readers=readers, rank=rank(), world_size=world_size()
    )
    with patch("attnfd_ray.train.evaluate.scores", wraps=scores) as spy:
        found = evaluate(
            model,
            batches,
            num_classes=val_set.num_classes,
            device=CPU,
            data=settings.data,
            train=settings.train,
        )
    counts: Tensor = spy.call_args.args[0]
    return counts, found


@pytest.mark.slow
def test_any_number_of_workers_counts_every_image_once(toys: Path, tmp_path: Path) -> None:
    settings = plain(toys)
    counts, found = counts_and_scores(settings)
    assert counts.sum() == VAL_IMAGES * 32 * 32 - sum(
        (label == 255).sum() for _, label in val_images(settings)
    )
    assert (
        len(counts.sum(0).nonzero()) > 3
    )  # a network that predicts the same class everywhere would prove little
    for workers in (2, 3):
        answers = on_workers(workers, tmp_path / str(workers), counts_and_scores, settings, True)
        for theirs, scored in answers:
            assert torch.equal(theirs, counts)
            assert scored == found


def val_images(settings: ExperimentSettings) -> Iterator[Batch]:
    _, val_set = datasets(settings)
    return val_batches(val_set, settings.data, readers=ReaderPool([val_set]))


class Echo(nn.Module):
    """Returns the channels of its input, and records the sizes of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.modes: list[bool] = []

    def forward(self, images_NCHW: Tensor) -> Tensor:
        self.shapes.append(tuple(images_NCHW.shape))
        self.modes.append(self.training)
        return images_NCHW


def pair(height: int, width: int, *, label_size: tuple[int, int] | None = None) -> Batch:
    """Return an image and its label: the left half is class 0, the right half class 2."""
    image = torch.zeros(1, 3, height, width)
    image[:, 0, :, : width // 2], image[:, 2, :, width // 2 :] = 1, 1
    rows, columns = label_size or (height, width)
    label = torch.zeros(1, rows, columns, dtype=torch.long)
    label[..., columns // 2 :] = 2
    return image, label


def score(batches: list[Batch], echo: nn.Module | None = None) -> Scores:
    data = DataSettings(name="toyscenes", root="unused", crop=(32, 32))
    return evaluate(
        echo or Echo(), batches, num_classes=3, device=CPU, data=data, train=TrainSettings()
    )


def test_neighbours_of_one_size_are_scored_together_and_nothing_else_is() -> None:
    echo = Echo()
    sizes = [(4, 6)] * 10 + [(6, 4)] + [(4, 6)] * 2 + [(4, 8)]
    assert score([pair(*size) for size in sizes], echo).miou == 1.0
    assert [shape[0] for shape in echo.shapes] == [8, 2, 1, 2, 1]
    assert [shape[2:] for shape in echo.shapes] == [(4, 6), (4, 6), (6, 4), (4, 6), (4, 8)]


def test_what_no_pixel_of_counts_has_no_score_rather_than_0() -> None:
    image, label = pair(4, 4)
    with pytest.raises(
        NoMetric, match="no pixel of split 'val' of toyscenes has a label that counts"
    ):
        score([(image, torch.full_like(label, 255))])
    assert score([(image, torch.full_like(label, 255)), (image, label)]).miou == 1.0


def test_images_of_one_size_with_labels_of_another_are_not_joined() -> None:
    echo = Echo()
    score([pair(4, 4, label_size=(8, 8)), pair(4, 4, label_size=(12, 12))], echo)
    assert len(echo.shapes) == 2


def test_logits_are_brought_to_the_size_of_the_label_and_not_the_other_way_round() -> None:
    found = score([pair(4, 8, label_size=(16, 32))])
    assert (found.miou, found.pixel_acc) == (1.0, 1.0)
    label = torch.full((1, 16, 32), 255)
    label[0, 0, 0] = 0  # a label of one pixel counts, however small the image is
    assert score([(pair(4, 8)[0], label)]).pixel_acc == 1.0


def test_a_shrunk_input_is_scored_at_the_native_size(toys: Path) -> None:
    settings = plain(toys, data__input_scale=0.5)
    for image, label in val_images(settings):
        assert (image.shape[-2:], label.shape[-2:]) == ((16, 16), (32, 32))
    counts, _ = counts_and_scores(settings)
    assert counts.sum() == counts_and_scores(plain(toys))[0].sum()


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_scored_in_eval_mode_and_left_as_it_was(training: bool) -> None:
    echo = Echo().train(training)
    score([pair(4, 4)], echo)
    assert echo.modes == [False]
    assert echo.training is training


def test_scoring_moves_nothing(toys: Path) -> None:
    settings = plain(toys)
    model = network(0, 12).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(
        model,
        val_images(settings),
        num_classes=12,
        device=CPU,
        data=settings.data,
        train=settings.train,
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_limit_scores_the_first_images_only(toys: Path) -> None:
    limited = plain(toys, data__val_limit=2)
    assert len(list(val_images(limited))) == 2
    counts, _ = counts_and_scores(limited)
    assert counts.sum() == sum(
        (label != 255).sum() for _, label in list(val_images(plain(toys)))[:2]
    )
    assert len(list(val_images(plain(toys, data__val_limit=999)))) == VAL_IMAGES


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "toyscenes/val/native/noflip"),
        ({"data__val_split": "train"}, "toyscenes/train/native/noflip"),
        ({"data__val_limit": 3}, "toyscenes/val[:3]/native/noflip"),
        ({"data__input_scale": 0.5}, "toyscenes/val/native-input0.5/noflip"),
        ({"data__evaluation": "resized"}, "toyscenes/val/resized32/noflip"),
        ({"data__evaluation": "resized", "data__crop": [24, 48]}, "toyscenes/val/resized24/noflip"),
        (
            {"data__input_scale": 0.5, "data__val_limit": 3},
            "toyscenes/val[:3]/native-input0.5/noflip",
        ),
        ({"data__eval_flip": True}, "toyscenes/val/native/flip"),
        ({"data__eval_scales": [0.5, 1, 1.25]}, "toyscenes/val/native-ms0.5,1,1.25/noflip"),
        (
            {"data__evaluation": "sliding", "data__crop": [24, 31]},
            "toyscenes/val/sliding24x31+16x21/noflip",
        ),
        (
            {"data__evaluation": "sliding", "data__eval_stride": [8, 9]},
            "toyscenes/val/sliding32x32+8x9/noflip",
        ),
    ],
)
def test_the_protocol_names_whatever_changes_a_score(
    changes: dict[str, Any], name: str, toys: Path
) -> None:
    assert protocol(plain(toys, **changes).data) == name


def test_the_protocol_does_not_name_what_changes_none(toys: Path) -> None:
    assert protocol(
        plain(toys, data__crop=[24, 24], data__blur=0.5, data__loader_workers=1).data
    ) == protocol(plain(toys).data)
