"""ICKD: its distance on small features, worked out by hand, and its invariances."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from attnfd_ray.distill.ickd import ICKD, correlation_distance, correlations
from attnfd_ray.distill.method import Networks
from attnfd_ray.errors import ConfigError

NETWORKS = Networks(student_channels={"decoder": 2}, teacher_channels={"decoder": 3})


def features(seed: int) -> Tensor:
    return torch.randn(
        (2, 3, 7, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def channels(*rows: tuple[float, ...]) -> Tensor:
    """Make one image of height 1, a channel's pixels at a time."""
    return torch.tensor(rows, dtype=torch.float64)[None, :, None]


def test_a_distance_is_the_one_worked_out_by_hand() -> None:
    # G = ((9, 12), (12, 16)): both rows along (3, 4)
    student = channels((3, 0), (4, 0))
    # G = ((1, 0), (0, 4)): rows (1, 0) and (0, 1)
    teacher = channels((1, 0), (0, 2))
    expected = ((0.6 - 1) ** 2 + 0.8**2 + 0.6**2 + (0.8 - 1) ** 2) / 2
    assert correlation_distance(student, teacher, grid=(1, 1)).item() == pytest.approx(
        expected, abs=1e-12
    )


def test_a_grid_takes_the_mean_over_its_patches() -> None:
    student, teacher = channels((3, 0, 1, 0), (4, 0, 0, 2)), channels((1, 0, 1, 0), (0, 2, 0, 2))
    first = ((0.6 - 1) ** 2 + 0.8**2 + 0.6**2 + (0.8 - 1) ** 2) / 2
    distance = correlation_distance(student, teacher, grid=(1, 2)).item()
    assert distance == pytest.approx((first + 0) / 2, abs=1e-12)


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 5), (7, 5)])
def test_patches_that_differ_by_a_pixel_cover_the_feature(grid: tuple[int, int]) -> None:
    given = features(0)
    ours = correlations(given, grid)
    assert ours.shape == (2, *grid, 3, 3)
    for down, rows in enumerate(given.tensor_split(grid[0], dim=2)):
        for across, patch in enumerate(rows.tensor_split(grid[1], dim=3)):
            flat = patch.flatten(2)
            gram = flat @ flat.mT
            expected = gram / gram.norm(dim=2, keepdim=True)
            torch.testing.assert_close(ours[:, down, across], expected)  # float64


def test_scaling_the_student_changes_nothing_and_equals_have_no_distance() -> None:
    student, teacher = features(0), features(1)
    for grid in ((1, 1), (2, 3)):
        distance = correlation_distance(student, teacher, grid=grid).item()
        scaled = correlation_distance(7 * student, teacher, grid=grid).item()
        assert scaled == pytest.approx(distance, rel=1e-12)
        assert correlation_distance(student, student, grid=grid) == 0
        assert 0 < distance < 4


def test_a_channel_that_is_zero_leaves_the_gradient_finite() -> None:
    student = features(0).index_fill(1, torch.tensor(1), 0).requires_grad_()
    correlation_distance(student, features(1), grid=(2, 2)).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_a_grid_finer_than_the_feature_is_refused_with_the_way_out() -> None:
    method = ICKD(ICKD.Settings(grid=(8, 5)), NETWORKS)
    with pytest.raises(ConfigError) as caught:
        method(
            {"decoder": torch.zeros(2, 2, 7, 5)},
            {"decoder": torch.zeros(2, 3, 7, 5)},
            torch.zeros(2, 28, 20),
        )
    assert str(caught.value) == (
        "method.grid: [8, 5] patches of a feature of 7 x 5 pixels; needs a pixel a patch: lower "
        "method.grid or raise data.crop"
    )


def test_what_learns_beside_the_student_is_the_connector() -> None:
    learning = {
        name.partition(".")[0] for name, _ in ICKD(ICKD.Settings(), NETWORKS).named_parameters()
    }
    assert learning == {"connectors"}


@pytest.mark.parametrize(
    "changes", [{"grid": (0, 1)}, {"grid": (2,)}, {"loss_weight": -1}, {"layers": []}]
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ICKD.Settings(**changes)
