"""Labels at the size of a feature, and the mean feature of each class."""

from __future__ import annotations

import pytest
import torch

from attnfd_ray.config.types import IGNORED
from attnfd_ray.data.datasets import base
from attnfd_ray.distill.labels import class_means, labels_at


def test_the_ignored_label_is_that_of_the_data() -> None:
    assert IGNORED == base.IGNORED


def test_labels_are_brought_to_the_size_of_a_feature_without_mixing_classes() -> None:
    labels = torch.tensor([[[0, 0, 255, 255], [0, 0, 255, 255], [7, 7, 3, 3], [7, 7, 3, 3]]])
    assert labels_at(labels, torch.zeros(1, 5, 2, 2)).tolist() == [[[0, 255], [7, 3]]]
    assert labels_at(labels, torch.zeros(1, 5, 4, 4)) is labels


def test_a_class_mean_is_taken_within_an_image_over_labelled_pixels() -> None:
    features = torch.tensor(
        [[[[1.0, 3.0, 100.0]], [[2.0, 6.0, 100.0]]], [[[5.0, 7.0, 9.0]], [[0.0, 0.0, 3.0]]]]
    )
    labels = torch.tensor([[[1, 1, 255]], [[0, 0, 2]]])
    means, counts = class_means(features, labels, num_classes=3)
    assert means.tolist() == [[[0, 0], [2, 4], [0, 0]], [[6, 0], [0, 0], [9, 3]]]
    assert counts.tolist() == [[0, 2, 0], [2, 0, 1]]


def test_class_means_agree_with_a_loop_over_classes() -> None:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn((3, 4, 5, 6), generator=rng, dtype=torch.float64)
    labels = torch.randint(6, (3, 5, 6), generator=rng)
    labels[labels == 5] = 255
    means, _ = class_means(features, labels, num_classes=5)
    for image in range(3):
        for index in range(5):
            own = features[image][:, labels[image] == index]
            assert means[image, index].tolist() == pytest.approx(
                own.mean(dim=1).tolist(), abs=1e-12
            )  # float64
