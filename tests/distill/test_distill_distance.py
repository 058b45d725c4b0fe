"""|| S/|S| - T/|T| ||^2: its values, and its invariances."""

from __future__ import annotations

import doctest
from typing import Literal

import pytest
import torch
from torch import Tensor

from attnfd_ray.distill import batch_sums
from attnfd_ray.distill.normalised import normalised_distance

Norm = Literal["image", "batch"]
both_norms = pytest.mark.parametrize("norm", ["image", "batch"])


def features(seed: int, *, shape: tuple[int, ...] = (3, 4, 5, 6)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_of(num_images: int, *values: float) -> Tensor:
    """Spread `values` over images, then over channels."""
    return torch.tensor(values, dtype=torch.float64).reshape(num_images, -1, 1, 1)


def test_the_image_norm_is_the_mean_over_images_of_the_one_worked_out_by_hand() -> None:
    student, teacher = batch_of(3, 1, 0, 1, 2, 3, 4), batch_of(3, 0, 1, -1, -2, 6, 8)
    assert normalised_distance(student, teacher, norm="image").item() == pytest.approx(
        (2 + 4 + 0) / 3, abs=1e-15
    )


@both_norms
def test_it_lies_between_0_for_equals_and_4_for_opposites(norm: Norm) -> None:
    for seed in range(20):
        student, teacher = features(seed), features(seed + 100)
        assert 0 <= normalised_distance(student, teacher, norm=norm) <= 4
        assert normalised_distance(student, student, norm=norm) == 0
    assert normalised_distance(student, -student, norm=norm).item() == pytest.approx(4, abs=1e-12)


@both_norms
def test_scaling_either_side_changes_nothing(norm: Norm) -> None:
    student, teacher = features(0), features(1)
    expected = normalised_distance(student, teacher, norm=norm).item()
    for factor in (1e-3, 7.0, 1e4):
        # scaling rounds each number once, in the 16th digit
        assert normalised_distance(factor * student, teacher, norm=norm).item() == pytest.approx(
            expected, rel=1e-12
        )
        assert normalised_distance(student, factor * teacher, norm=norm).item() == pytest.approx(
            expected, rel=1e-12
        )


def test_the_two_norms_are_one_for_a_single_image() -> None:
    student, teacher = features(0, shape=(1, 4, 5, 6)), features(1, shape=(1, 4, 5, 6))
    image, batch = (normalised_distance(student, teacher, norm=norm) for norm in ("image", "batch"))
    assert image.item() == pytest.approx(
        batch.item(), rel=1e-12
    )  # float64, computed in another way


def test_the_batch_norm_is_one_number_for_all_images_together() -> None:
    student, teacher = batch_of(2, 3, 4, 0, 0), batch_of(2, 0, 0, 5, 12)
    assert normalised_distance(student, teacher, norm="batch").item() == pytest.approx(2, abs=1e-15)
    student, teacher = batch_of(2, 1, 2, 3, 4), batch_of(2, 4, 3, 2, 1)
    assert normalised_distance(student, teacher, norm="batch").item() == pytest.approx(
        2 - 2 * 20 / 30, abs=1e-15
    )


def test_an_image_with_features_near_zero_gets_no_large_gradient_from_the_batch_norm() -> None:
    student, teacher = features(0), features(1)
    student[0] *= (
        1e-6  # what a BatchNorm before it allows: it fixes the energy of a batch, not of an image
    )
    sizes = {}
    for norm in ("image", "batch"):
        quiet = student.clone().requires_grad_()
        normalised_distance(quiet, teacher, norm=norm).backward()  # type: ignore[no-untyped-call, arg-type]
        assert quiet.grad is not None
        sizes[norm] = (quiet.grad[0].norm() / quiet.grad[1:].norm()).item()
    assert sizes["image"] > 1e5
    assert sizes["batch"] < 2


@pytest.mark.parametrize("sizes", [[1, 5], [2, 2, 2], [3, 1, 2]])
def test_the_image_norm_does_not_depend_on_how_a_batch_is_cut(sizes: list[int]) -> None:
    student, teacher = (features(seed, shape=(6, 4, 5, 6)) for seed in (0, 1))
    student[0] *= 1000  # a loud image must not count for more than a quiet one
    parts = zip(torch.split(student, sizes), torch.split(teacher, sizes), strict=True)
    mean = sum(len(s) * normalised_distance(s, t, norm="image").item() for s, t in parts) / 6
    # float64, added in another order
    assert normalised_distance(student, teacher, norm="image").item() == pytest.approx(
        mean, rel=1e-12
    )


@both_norms
@pytest.mark.parametrize("silent", ["student", "teacher", "both", "one image"])
def test_a_map_of_zeros_gives_numbers_and_not_nan(silent: str, norm: Norm) -> None:
    student, teacher = features(0).float(), features(1).float()
    if silent in ("student", "both"):
        student = torch.zeros_like(student)
    if silent in ("teacher", "both"):
        teacher = torch.zeros_like(teacher)
    if silent == "one image":
        student[1] = 0
    student.requires_grad_()
    distance = normalised_distance(student, teacher, norm=norm)
    distance.backward()  # type: ignore[no-untyped-call]
    assert 0 <= distance <= 4
    assert student.grad is not None
    assert student.grad.isfinite().all()


@both_norms
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_squared_in_single_precision(
    dtype: torch.dtype, norm: Norm
) -> None:
    # squares of 1e4 are past float16's 65504, and so is their sum
    student, teacher = (1e4 * features(seed).to(dtype) for seed in (0, 1))
    student.requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        distance = normalised_distance(student, teacher, norm=norm)
    assert distance.dtype == torch.float32
    assert torch.equal(distance, normalised_distance(student.float(), teacher.float(), norm=norm))
    distance.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_the_example_of_batch_sums_gives_what_it_says() -> None:
    tried = doctest.testmod(batch_sums)
    assert tried.attempted > 0
    assert tried.failed == 0
