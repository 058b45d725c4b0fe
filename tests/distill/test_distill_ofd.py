"""OFD: margins and partial distance by hand, its epochs, and layers that it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from attnfd_ray.distill.method import BatchNormStats, Networks
from attnfd_ray.distill.ofd import DIVISORS, OFD, margin, partial_distance
from attnfd_ray.errors import ConfigError

LABELS = torch.zeros(6, 1, 1, dtype=torch.long)
NETWORKS = Networks(
    student_channels=dict.fromkeys(DIVISORS, 3),
    teacher_channels=dict.fromkeys(DIVISORS, 3),
    teacher_norms=dict.fromkeys(
        DIVISORS,
        BatchNormStats(scale=torch.tensor([1.0, -2.0, 0.5]), shift=torch.tensor([0.0, 1, -1])),
    ),
)


def drawn(seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {layer: torch.randn((6, 3, 2, 2), generator=rng) for layer in DIVISORS}


def test_a_margin_is_the_mean_of_what_lies_below_zero() -> None:
    # of N(0, 1) that is -2 phi(0) = -sqrt(2 / pi)
    density, below = (
        math.exp(-1 / 8) / math.sqrt(2 * math.pi),
        (1 + math.erf(-0.5 / math.sqrt(2))) / 2,
    )
    norm = BatchNormStats(
        scale=torch.tensor([1.0, 2.0, -2.0, 1.0]), shift=torch.tensor([0.0, 1.0, 1.0, -40.0])
    )
    expected = [-math.sqrt(2 / math.pi), 1 - 2 * density / below, 1 - 2 * density / below, -40.0]
    assert margin(norm).tolist() == pytest.approx(expected, rel=1e-6)  # float32


def test_a_margin_is_what_one_finds_by_drawing() -> None:
    values = 1 + 2 * torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    found = values[values < 0].mean().item()
    # the mean of 123 000 values that spread about 1.2
    assert margin(
        BatchNormStats(scale=torch.tensor([2.0]), shift=torch.tensor([1.0]))
    ).item() == pytest.approx(found, abs=0.02)


def test_a_margin_where_hardly_anything_is_below_zero_is_three_spreads() -> None:
    # P(x < 0) of N(4, 1) is 3e-5, and of a channel that a scale of 0 switched off it is 0 or all
    norm = BatchNormStats(
        scale=torch.tensor([1.0, 0.0, 0.0, 0.0]), shift=torch.tensor([4.0, 1.0, -1.0, 0.0])
    )
    assert margin(norm).tolist() == pytest.approx([-3.0, 0.0, -1.0, 0.0], abs=1e-12)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (1.0, 2.0, 1.0),  # both active
        (-3.0, 2.0, 25.0),  # the student has to become active
        (0.5, -5.0, 1.5**2),  # ... or inactive: T' is the margin, -1
        (-0.4, -0.5, 0.1**2),  # above T', though below 0
        (-0.7, -0.5, 0.0),  # s <= t' <= 0: nothing is asked of it
        (-3.0, -5.0, 0.0),
    ],
)
def test_the_partial_distance_by_hand(student: float, teacher: float, expected: float) -> None:
    sides = [
        torch.tensor([side, 0.0]).reshape(2, 1, 1, 1) for side in (student, teacher)
    ]  # a second image of nothing
    # float32, of numbers about 1
    assert partial_distance(*sides, margin_C=torch.tensor([-1.0])).item() == pytest.approx(
        expected / 2, abs=1e-6
    )


def test_at_a_batch_of_six_a_term_is_the_published_one() -> None:
    method: Any = OFD(OFD.Settings(), NETWORKS).eval()
    method.connectors.update({layer: nn.Identity() for layer in DIVISORS})
    student, teacher = drawn(1), drawn(2)
    terms = method(student, teacher, LABELS)
    assert list(terms) == [f"ofd/{layer}" for layer in DIVISORS]
    for layer, divisor in zip(DIVISORS, (8, 4, 2, 1, 1, 16), strict=True):
        limits = margin(NETWORKS.teacher_norms[layer]).tolist()
        summed = 0.0
        for channel, limit in enumerate(limits):
            pairs = zip(
                student[layer][:, channel].flatten().tolist(),
                teacher[layer][:, channel].flatten().tolist(),
                strict=True,
            )
            for s, t in ((s, max(t, limit)) for s, t in pairs):
                summed += (s - t) ** 2 if s > t or t > 0 else 0
        assert terms[f"ofd/{layer}"].item() == pytest.approx(
            1e-5 * summed / divisor, rel=1e-5
        )  # float32


def test_in_the_first_epoch_only_the_connectors_learn_unless_that_is_left_out() -> None:
    published, at_once = (
        OFD(OFD.Settings(), NETWORKS),
        OFD(OFD.Settings(connector_epochs=0), NETWORKS),
    )
    assert [published.frozen_prefixes(epoch) for epoch in (1, 2, 3)] == [("student",), (), ()]
    assert [at_once.frozen_prefixes(epoch) for epoch in (1, 2)] == [(), ()]


def test_its_teacher_normalises_by_the_batch() -> None:
    assert OFD(OFD.Settings(), NETWORKS).teacher_mode == "batch_statistics"


def test_margins_move_with_the_method_and_are_stored_with_it() -> None:
    method = OFD(OFD.Settings(layers=["stage4"]), NETWORKS).double()
    assert method.state_dict()["margin_stage4"].dtype == torch.float64


def test_a_layer_that_comes_from_no_batchnorm_is_refused() -> None:
    bare = Networks(
        student_channels=NETWORKS.student_channels, teacher_channels=NETWORKS.teacher_channels
    )
    with pytest.raises(ConfigError) as raised:
        OFD(OFD.Settings(), bare)
    assert str(raised.value) == (
        "method.layers: 'stage1' comes from no BatchNorm of the teacher, which OFD needs for its "
        "margin; leave it out"
    )


def test_a_layer_after_a_relu_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"before a ReLU: stage1, .*, decoder_pre; not 'decoder'"
    ):
        OFD.Settings(layers=["stage1", "decoder"])
