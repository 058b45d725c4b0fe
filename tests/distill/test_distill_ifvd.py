"""IFVD: its distance on small features, worked out by hand, and its invariances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnfd_ray.distill.ifvd import IFVD, variation, variation_distance
from attnfd_ray.distill.method import Networks


def features(seed: int, channels: int = 3) -> Tensor:
    return torch.randn(
        (2, channels, 4, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def labels() -> Tensor:
    drawn = torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(2))
    drawn[0, 0], drawn[1, :, 2:] = 255, 255
    return drawn


def row_of(*pixels: tuple[float, ...]) -> Tensor:
    """Make one image of height 1, a pixel's channels at a time."""
    return torch.tensor(pixels, dtype=torch.float64).T[None, :, None]


def test_a_distance_is_the_one_worked_out_by_hand() -> None:
    given = torch.tensor([[[0, 0, 2, 255]]])
    # class 0: mean (1.5, 2), along (3, 4): cosines 0.6 and 0.8; class 2: one pixel, cosine 1
    student = row_of((3, 0), (0, 4), (1, 1), (9, -9))
    # class 0: mean (1, 0, 1): cosine 1 and 1
    teacher = row_of((1, 0, 1), (1, 0, 1), (0, 5, 0), (1, 2, 3))
    expected = ((1 - 0.6) ** 2 + (1 - 0.8) ** 2 + 0 + 0) / 4
    assert variation_distance(student, teacher, given, num_classes=3).item() == pytest.approx(
        expected, abs=1e-12
    )


def test_an_ignored_pixel_has_no_error_and_no_gradient_but_counts() -> None:
    student, teacher, given = features(0).requires_grad_(), features(1), labels()
    distance = variation_distance(student, teacher, given, num_classes=3)
    distance.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    ignored = (given == 255)[:, None].expand_as(student)
    assert (student.grad[ignored] == 0).all()
    other = torch.where(ignored, 50.0, student.detach())
    assert variation_distance(other, teacher, given, num_classes=3).item() == pytest.approx(
        distance.item(), rel=1e-12
    )
    labelled = given != 255
    errors = (variation(student, given, 3) - variation(teacher, given, 3)).square()[labelled]
    assert distance.item() == pytest.approx(errors.sum().item() / given.numel(), rel=1e-12)


def test_where_nothing_is_labelled_there_is_nothing_to_learn() -> None:
    student = features(0).requires_grad_()
    distance = variation_distance(student, features(1), torch.full((2, 4, 5), 255), num_classes=3)
    distance.backward()  # type: ignore[no-untyped-call]
    assert distance == 0
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_prototypes_are_of_one_image_not_of_the_batch() -> None:
    student, teacher, given = features(0), features(1, channels=4), labels()
    whole = variation_distance(student, teacher, given, num_classes=3).item()
    alone = [
        variation_distance(
            student[i : i + 1], teacher[i : i + 1], given[i : i + 1], num_classes=3
        ).item()
        for i in range(2)
    ]
    assert whole == pytest.approx(sum(alone) / 2, rel=1e-12)


def test_scaling_the_student_changes_nothing_and_equals_have_no_distance() -> None:
    student, teacher = features(0), features(1)
    distance = variation_distance(student, teacher, labels(), num_classes=3).item()
    scaled = variation_distance(7 * student, teacher, labels(), num_classes=3).item()
    assert scaled == pytest.approx(distance, rel=1e-12)
    assert variation_distance(student, student, labels(), num_classes=3) == 0
    assert 0 < distance < 4


def test_labels_of_the_images_are_brought_to_the_size_of_the_teacher() -> None:
    networks = Networks(
        student_channels={"decoder": 3}, teacher_channels={"decoder": 4}, num_classes=3
    )
    method = IFVD(IFVD.Settings(loss_weight=2), networks)
    large = labels().repeat_interleave(4, 1).repeat_interleave(4, 2)
    student, teacher = features(0), features(1, channels=4)
    expected = 2 * variation_distance(student, teacher, labels(), num_classes=3)
    assert method({"decoder": student}, {"decoder": teacher}, large)["ifvd/decoder"] == expected
    assert list(method.parameters()) == []
