"""SKD: its distance on small features, worked out by hand, and its invariances."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from attnfd_ray.distill.method import Networks
from attnfd_ray.distill.skd import SKD, pairwise_distance, similarities

NETWORKS = Networks(student_channels={"decoder": 2}, teacher_channels={"decoder": 3})


def features(seed: int, channels: int = 3) -> Tensor:
    return torch.randn(
        (2, channels, 6, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def row_of(*pixels: tuple[float, ...]) -> Tensor:
    """Make one image of height 1, a pixel's channels at a time."""
    return torch.tensor(pixels, dtype=torch.float64).T[None, :, None]


def test_a_distance_is_the_one_worked_out_by_hand() -> None:
    # four regions of one pixel, so nothing is pooled away: a scale of 1/4 of a width of 4
    student = row_of((1, 0), (0, 1), (1, 0), (0, 1))  # cosines: 1 two apart, 0 with a neighbour
    teacher = row_of(
        (2, 0, 0), (3, 0, 0), (0, 5, 0), (0, 0, 1)
    )  # cosines: 1 between the first two, else 0
    # they differ by 1 for the pairs (0,1), (0,2), (1,3), both ways round: 6 of 16
    assert pairwise_distance(student, teacher, pool_scale=0.25).item() == pytest.approx(
        6 / 16, abs=1e-7
    )


def test_opposite_and_half_way_regions_give_the_one_worked_out_by_hand() -> None:
    student, teacher = row_of((1, 0), (-1, 0)), row_of((1, 0), (1, 1))
    expected = 2 * (-1 - 0.5**0.5) ** 2 / 4
    # 1e-8 is added to a norm
    assert pairwise_distance(student, teacher, pool_scale=0.5).item() == pytest.approx(
        expected, abs=1e-7
    )


def test_a_region_is_the_largest_of_each_channel_over_half_the_height_and_width() -> None:
    given = (
        torch.tensor([[[[3.0, 1], [0, 2]], [[4.0, 0], [1, 0]]]])
        .repeat_interleave(2, 2)
        .repeat_interleave(2, 3)
    )
    # (3, 4), (1, 0), (0, 1), (2, 0)
    expected = [[1, 0.6, 0.8, 0.6], [0.6, 1, 0, 1], [0.8, 0, 1, 0], [0.6, 1, 0, 1]]
    for row, wanted in zip(similarities(given, 0.5)[0].tolist(), expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-6)  # float32


@pytest.mark.parametrize(
    ("size", "scale", "regions"),
    [(8, 0.5, 4), (9, 0.5, 4), (129, 0.5, 4), (8, 0.25, 16), (3, 1, 1)],
)
def test_odd_sides_leave_no_narrow_region(size: int, scale: float, regions: int) -> None:
    assert similarities(torch.ones(1, 2, size, size), scale).shape == (1, regions, regions)


def test_scaling_the_student_changes_nothing_and_equals_have_no_distance() -> None:
    student, teacher = features(0), features(1, channels=4)
    distance = pairwise_distance(student, teacher, pool_scale=0.5).item()
    # 1e-8 is added to norms of about 1
    assert pairwise_distance(7 * student, teacher, pool_scale=0.5).item() == pytest.approx(
        distance, rel=1e-6
    )
    assert pairwise_distance(student, student, pool_scale=0.5) == 0
    assert 0 < distance < 4


def test_the_gradient_takes_norms_for_constants() -> None:
    student = row_of((3, 4), (0, 2)).requires_grad_()
    similarities(student, 0.5)[0, 0, 1].backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    # of (x . y) / (5 x 2) with respect to x: y / 10
    assert student.grad[0, :, 0, 0].tolist() == pytest.approx([0, 0.2], abs=1e-8)


def test_a_pixel_that_is_zero_leaves_the_gradient_finite() -> None:
    student = torch.zeros(1, 2, 2, 2, requires_grad=True)
    pairwise_distance(student, features(0)[:1, :, :2, :2].float(), pool_scale=0.5).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_nothing_beside_the_student_learns() -> None:
    assert list(SKD(SKD.Settings(), NETWORKS).parameters()) == []


@pytest.mark.parametrize(
    "changes", [{"pool_scale": 0}, {"pool_scale": 1.5}, {"loss_weight": -1}, {"layers": []}]
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SKD.Settings(**changes)
