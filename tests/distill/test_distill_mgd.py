"""MGD: its distance, its masks, and the modules that it trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from attnfd_ray.distill.method import Networks
from attnfd_ray.distill.mgd import MGD, MaskedGenerator, squared_distance

NETWORKS = Networks(student_channels={"stage4": 2}, teacher_channels={"stage4": 3})


def seen_by(generator: MaskedGenerator, features_NCHW: Tensor, seed: int) -> Tensor:
    """Return what of the aligned features the generator's first convolution is shown."""
    shown: list[Tensor] = []
    handle = generator.generate.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    torch.manual_seed(seed)
    generator(features_NCHW)
    handle.remove()
    return shown[0]


def test_a_distance_is_a_sum_over_channels_and_pixels_and_a_mean_over_images() -> None:
    student = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]], [[[0.0, 0.0]], [[0.0, 0.0]]]])
    teacher = torch.tensor([[[[0.0, 2.0]], [[1.0, 7.0]]], [[[1.0, 1.0]], [[1.0, 0.0]]]])
    assert squared_distance(student, teacher) == ((1 + 0 + 4 + 9) + 3) / 2


def test_a_generator_is_two_convolutions_with_a_relu_between() -> None:
    generator = MaskedGenerator(1, 1, masked=0)
    for convolution, centre, bias in (
        (generator.align, 2.0, 1.0),
        (generator.generate[0], -1.0, 3.0),
    ):
        assert isinstance(convolution, nn.Conv2d)
        nn.init.dirac_(convolution.weight)
        convolution.weight.data *= centre
        nn.init.constant_(convolution.bias, bias)  # type: ignore[arg-type]
    last = generator.generate[2]
    assert isinstance(last, nn.Conv2d)
    nn.init.constant_(last.weight, 1.0)
    nn.init.constant_(last.bias, 0.5)  # type: ignore[arg-type]
    # aligned 2x + 1: 1, 3, 5; then relu(3 - that): 2, 0, 0; then each pixel and its neighbours
    # summed, + 0.5
    generated = generator(torch.tensor([[[[0.0, 1.0, 2.0]]]]))
    assert generated.flatten().tolist() == [2.5, 2.5, 0.5]


@pytest.mark.parametrize("masked", [0.0, 0.25, 0.75, 1.0])
def test_a_pixel_is_hidden_in_all_its_channels_as_often_as_the_settings_say(masked: float) -> None:
    generator = MaskedGenerator(2, 3, masked=masked)
    given = torch.ones(4, 2, 50, 50)
    hidden = seen_by(generator, given, seed=0) == 0
    assert (hidden.all(dim=1) == hidden.any(dim=1)).all()
    # 10000 draws: a standard deviation of 0.005 at most
    assert hidden.float().mean().item() == pytest.approx(masked, abs=0.02)


def test_the_same_pixels_are_hidden_after_reseeding_and_others_without() -> None:
    generator, given = MaskedGenerator(2, 3, masked=0.75), torch.ones(2, 2, 9, 9)
    first, again, other = (seen_by(generator, given, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_term_is_the_distance_at_the_size_of_the_teacher_times_the_weight() -> None:
    method = MGD(MGD.Settings(masked=0, loss_weight=3), NETWORKS)
    student, teacher = torch.randn(2, 2, 4, 4), torch.randn(2, 3, 4, 4)
    expected = 3 * (method.connectors["stage4"](student) - teacher).square().sum() / 2
    term = method({"stage4": student}, {"stage4": teacher}, torch.zeros(2, 64, 64))["mgd/stage4"]
    assert term.item() == pytest.approx(expected.item(), rel=1e-6)  # float32


def test_the_generator_has_the_size_of_the_paper() -> None:
    with torch.device("meta"):
        generator = MaskedGenerator(512, 2048, masked=0.75)
    weights = 2 * 9 * 2048**2 + 2 * 2048
    assert sum(parameter.numel() for parameter in generator.generate.parameters()) == weights
    assert sum(parameter.numel() for parameter in generator.align.parameters()) == 512 * 2048 + 2048


@pytest.mark.parametrize(
    "changes", [{"masked": 1.1}, {"masked": -0.1}, {"loss_weight": -1}, {"layers": []}]
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MGD.Settings(**changes)
