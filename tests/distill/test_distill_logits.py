"""KD, channel-wise distillation and DIST: worked out by hand, and their invariances."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from attnfd_ray import registry
from attnfd_ray.distill.cwd import channel_divergence
from attnfd_ray.distill.dist import decorrelation, relation_distance
from attnfd_ray.distill.kd import softened_divergence
from attnfd_ray.distill.method import Networks

LABELS = torch.zeros(2, 1, 1, dtype=torch.long)
# KL of (3/4, 1/4) from (1/2, 1/2)
DIVERGENCE = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
NETWORKS = Networks(student_channels={"logits": 3}, teacher_channels={"logits": 3}, num_classes=3)


def drawn(seed: int) -> Tensor:
    """Return logits of two images, three classes and 4x5 positions, in double precision."""
    return torch.randn(
        (2, 3, 4, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def loss(name: str, student: Tensor, teacher: Tensor, **settings: Any) -> float:
    """Return the only term of a method at loss weight 1."""
    kind = registry.load("method", name)
    terms = kind(kind.Settings(loss_weight=1, **settings), NETWORKS)(
        {"logits": student}, {"logits": teacher}, LABELS
    )
    assert list(terms) == [f"{name}/logits"]
    return float(terms[f"{name}/logits"].item())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kd_by_hand(temperature: float) -> None:
    # one image of two pixels and two classes; at the second pixel both sides say the same
    teacher = temperature * torch.tensor([[[[math.log(3.0), 0.0]], [[0.0, 0.0]]]])
    value = softened_divergence(
        torch.zeros(1, 2, 1, 2), teacher, dim=1, temperature=temperature
    ).item()
    assert value == pytest.approx(temperature**2 * DIVERGENCE / 2, rel=1e-6)  # float32


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_channel_wise_distillation_by_hand(temperature: float) -> None:
    # one image of two channels and two positions; in the second channel both sides look at the same
    # place
    teacher = temperature * torch.tensor([[[[math.log(3.0), 0.0]], [[5.0, 1.0]]]])
    student = temperature * torch.tensor([[[[0.0, 0.0]], [[5.0, 1.0]]]])
    value = channel_divergence(student, teacher, temperature=temperature).item()
    assert value == pytest.approx(temperature**2 * DIVERGENCE / 2, rel=1e-6)  # float32


def test_correlation_by_hand() -> None:
    # (1, 2, 3) and (1, 3, 2), less their means, are (-1, 0, 1) and (-1, 1, 0): r = 1 / (sqrt 2 *
    # sqrt 2)
    ours, theirs = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]])
    assert decorrelation(ours, theirs, dim=1).item() == pytest.approx(0.5)
    assert decorrelation(ours, -ours, dim=1).item() == pytest.approx(2)


def test_dist_by_hand() -> None:
    # teacher: rows (3/4, 1/4) and (1/4, 3/4); student: twice (1/4, 3/4). r of the rows is -1 and 1;
    # the student's columns are constant and correlate with nothing
    log3 = math.log(3.0)
    teacher, student = (
        torch.tensor([[[[log3, 0.0]], [[0.0, log3]]]]),
        torch.tensor([[[[0.0, 0.0]], [[log3, log3]]]]),
    )
    value = relation_distance(
        2 * student, 2 * teacher, temperature=2, inter_weight=10, intra_weight=100
    ).item()
    assert value == pytest.approx(2**2 * (10 * (2 + 0) / 2 + 100 * (1 + 1) / 2))


def test_the_columns_of_dist_run_over_all_images() -> None:
    student, teacher = drawn(0), drawn(1)
    probabilities = [
        side.softmax(dim=1).permute(0, 2, 3, 1).reshape(40, 3) for side in (student, teacher)
    ]
    columns = [
        1 - torch.corrcoef(torch.stack([side[:, k] for side in probabilities]))[0, 1]
        for k in range(3)
    ]
    expected = torch.stack(columns).mean().item()
    # 1e-8 is added to the norms, which are about 1 here
    assert loss("dist", student, teacher, inter_weight=0) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "shape"), [("kd", (2, 1, 4, 5)), ("dist", (2, 1, 4, 5)), ("cwd_logit", (2, 3, 1, 1))]
)
def test_a_shift_that_the_softmax_takes_out_changes_nothing(
    name: str, shape: tuple[int, ...]
) -> None:
    shift = 10 * torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    plain = loss(name, drawn(0), drawn(1))
    assert plain > 0.01
    assert loss(name, drawn(0) + shift, drawn(1) - shift) == pytest.approx(
        plain, rel=1e-9
    )  # float64


def test_dist_does_not_mind_a_positive_affine_map_of_the_probabilities() -> None:
    student, teacher = (drawn(seed).flatten(2).softmax(dim=1)[0].T for seed in (0, 1))
    for dim in (0, 1):
        plain = decorrelation(student, teacher, dim=dim).item()
        # 1e-8 is added to norms of about 0.1
        assert decorrelation(3 * student + 5, teacher, dim=dim).item() == pytest.approx(
            plain, rel=1e-5
        )
        assert decorrelation(-student, teacher, dim=dim).item() == pytest.approx(
            2 - plain, rel=1e-5
        )


def test_the_published_weights_and_temperatures_are_the_defaults() -> None:
    settings = {
        name: registry.load("method", name).Settings() for name in ("kd", "cwd_logit", "dist")
    }
    assert (settings["kd"].temperature, settings["kd"].loss_weight) == (1, 1)
    assert (settings["cwd_logit"].temperature, settings["cwd_logit"].loss_weight) == (4, 3)
    assert (settings["dist"].temperature, settings["dist"].loss_weight) == (1, 1)
    assert (settings["dist"].inter_weight, settings["dist"].intra_weight) == (1, 1)
