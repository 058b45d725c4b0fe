"""Scores, computed by hand and compared with torchmetrics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)

from attnfd_ray.train.metrics import confusion, scores


def test_a_worked_example() -> None:
    labels = torch.tensor([[0, 0, 0, 1], [1, 2, 255, 255]])
    predictions = torch.tensor([[0, 0, 1, 1], [2, 0, 0, 3]])
    counts = confusion(labels, predictions, num_classes=5)
    assert counts.tolist() == [[2, 1, 0, 0, 0], [0, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0] * 5, [0] * 5]
    found = scores(counts)
    # hits / (labelled + predicted - hits): 2/4, 1/3, 0/2; 3 is predicted on an ignored pixel only,
    # 4 nowhere
    assert found.class_iou == [pytest.approx(0.5), pytest.approx(1 / 3), 0.0, None, None]
    assert found.miou == pytest.approx((0.5 + 1 / 3 + 0) / 3)
    assert found.pixel_acc == pytest.approx(3 / 6)
    assert found.class_acc == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_a_class_that_is_predicted_and_nowhere_labelled_counts_as_0() -> None:
    found = scores(confusion(torch.tensor([0, 0]), torch.tensor([0, 1]), num_classes=3))
    assert found.class_iou == [0.5, 0.0, None]
    assert found.miou == 0.25
    assert found.class_acc == 0.5  # which is over labelled classes


def test_nothing_labelled_scores_0() -> None:
    found = scores(confusion(torch.tensor([255, 255]), torch.tensor([0, 1]), num_classes=2))
    assert (found.miou, found.pixel_acc, found.class_acc, found.class_iou) == (
        0,
        0,
        0,
        [None, None],
    )


def test_counts_are_whole_numbers_however_many_there_are() -> None:
    counts = torch.tensor([[2**53, 1], [0, 2**40]])
    assert counts.dtype == confusion(torch.tensor([0]), torch.tensor([0]), num_classes=2).dtype
    assert scores(counts).miou == pytest.approx(1.0)


def noisy(seed: int, num_classes: int, absent: set[int]) -> tuple[Tensor, Tensor]:
    """Two maps where `absent` classes are neither labelled nor predicted, and some pixels are
    ignored.
    """
    rng = torch.Generator().manual_seed(seed)
    present = torch.tensor([name for name in range(num_classes) if name not in absent])
    labels = present[torch.randint(len(present), (4, 17, 23), generator=rng)]
    guesses = present[torch.randint(len(present), labels.shape, generator=rng)]
    predictions = torch.where(torch.rand(labels.shape, generator=rng) < 0.6, labels, guesses)
    labels[torch.rand(labels.shape, generator=rng) < 0.2] = 255
    return labels, predictions


@pytest.mark.parametrize("absent", [set(), {0}, {2, 6}])
@pytest.mark.parametrize("seed", range(3))
def test_they_are_those_of_torchmetrics(seed: int, absent: set[int]) -> None:
    num_classes = 7
    labels, predictions = noisy(seed, num_classes, absent)
    counts = confusion(labels, predictions, num_classes=num_classes)
    assert torch.equal(
        counts, MulticlassConfusionMatrix(num_classes, ignore_index=255)(predictions, labels)
    )

    found, present = scores(counts), [name for name in range(num_classes) if name not in absent]
    # torchmetrics counts in float32
    iou = MulticlassJaccardIndex(num_classes, average="none", ignore_index=255)(predictions, labels)
    assert [found.class_iou[name] for name in present] == pytest.approx(
        iou[present].tolist(), rel=1e-6
    )
    assert [name for name, value in enumerate(found.class_iou) if value is None] == sorted(absent)
    assert found.miou == pytest.approx(iou[present].mean().item(), rel=1e-6)
    accuracy = MulticlassAccuracy(num_classes, average="none", ignore_index=255)(
        predictions, labels
    )
    assert found.class_acc == pytest.approx(accuracy[present].mean().item(), rel=1e-6)
    overall = MulticlassAccuracy(num_classes, average="micro", ignore_index=255)(
        predictions, labels
    )
    assert found.pixel_acc == pytest.approx(overall.item(), rel=1e-6)
