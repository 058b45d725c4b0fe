"""FitNet, attention transfer, channel-wise and angular distillation: by hand, and invariances."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from attnfd_ray import registry
from attnfd_ray.distill.at import attention_distance
from attnfd_ray.distill.attnfd import AttnFD
from attnfd_ray.distill.fitnet import squared_error
from attnfd_ray.distill.method import Method, Networks

LABELS = torch.zeros(2, 1, 1, dtype=torch.long)
LAYERS = ["aspp", "decoder"]
CHANNELS = Networks(
    student_channels={"aspp": 3, "decoder": 4}, teacher_channels={"aspp": 6, "decoder": 4}
)
SAME = Networks(student_channels={"aspp": 2}, teacher_channels={"aspp": 2})
METHODS = ["fitnet", "at", "cwd_feature", "lad", "pad", "cad", "naive"]


def make(name: str, networks: Networks = CHANNELS, **settings: Any) -> Method:
    kind = registry.load("method", name)
    torch.manual_seed(0)
    settings = {"layers": list(networks.student_channels), "loss_weight": 1, **settings}
    method: Method = kind(kind.Settings(**settings), networks).double()
    return method


def without_connectors(name: str) -> Method:
    method: Any = make(name, SAME)
    method.connectors["aspp"] = nn.Identity()
    return method  # type: ignore[no-any-return]


def features(channels: Any, seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        layer: torch.randn((2, n, 3, 5), generator=rng, dtype=torch.float64)
        for layer, n in channels.items()
    }


def value(name: str, student: list[Any], teacher: list[Any]) -> float:
    """Return a method's only term without its connector, at loss weight 1."""
    given = [{"aspp": torch.tensor(side, dtype=torch.float64)} for side in (student, teacher)]
    terms = without_connectors(name)(*given, LABELS)
    assert list(terms) == [f"{name}/aspp"]
    return float(terms[f"{name}/aspp"].item())


# By hand. An image of two channels and two positions is [[[a, b]], [[c, d]]].


@pytest.mark.parametrize("name", ["fitnet", "naive"])
def test_raw_features_by_hand(name: str) -> None:
    # differences 1, 2, 3, 4
    assert value(name, [[[[1, 2]], [[3, 4]]]], [[[[0, 0]], [[6, 8]]]]) == pytest.approx(
        (1 + 4 + 9 + 16) / 4
    )


def test_attention_transfer_by_hand() -> None:
    # the student is active at the first of two positions, (1, 0); the teacher's mean squares over
    # channels are (3, 4), which as a unit vector is (3/5, 4/5)
    student = torch.tensor([[[[7.0, 0.0]]]])
    teacher = torch.tensor([[[[math.sqrt(6), math.sqrt(8)]], [[0.0, 0.0]]]])
    expected = ((1 - 3 / 5) ** 2 + (4 / 5) ** 2) / 2
    assert attention_distance(student, teacher).item() == pytest.approx(
        expected, rel=1e-6
    )  # float32


def test_pixel_wise_angular_distance_by_hand() -> None:
    # pixel 1: (3, 4) and (4, 3), so (.6, .8) and (.8, .6); pixel 2: (0, 5) and (1, 0), at right
    # angles
    expected = ((0.2**2 + 0.2**2) + 2) / 2
    assert value("pad", [[[[3, 0]], [[4, 5]]]], [[[[4, 1]], [[3, 0]]]]) == pytest.approx(expected)


def test_channel_wise_angular_distance_by_hand() -> None:
    # the same with positions for channels
    expected = ((0.2**2 + 0.2**2) + 2) / 2
    assert value("cad", [[[[3, 4]], [[0, 5]]]], [[[[4, 3]], [[1, 0]]]]) == pytest.approx(expected)


def test_layer_wise_angular_distance_by_hand() -> None:
    # two images as one vector, at right angles to the teacher's
    student, teacher = [[[[3]], [[4]]], [[[0]], [[0]]]], [[[[0]], [[0]]], [[[5]], [[12]]]]
    assert value("lad", student, teacher) == pytest.approx(2)
    # (1, 2, 3, 4) and (4, 3, 2, 1): cosine 20 / 30, so 2 - 2 * 20 / 30
    student, teacher = [[[[1]], [[2]]], [[[3]], [[4]]]], [[[[4]], [[3]]], [[[2]], [[1]]]]
    assert value("lad", student, teacher) == pytest.approx(2 / 3)


def test_channel_wise_divergence_of_features_by_hand() -> None:
    # at temperature 4: the teacher looks at positions with (3/4, 1/4), the student with (1/2, 1/2);
    # then both alike
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    student, teacher = [[[[0, 0]], [[9, 1]]]], [[[[4 * math.log(3), 0]], [[9, 1]]]]
    assert value("cwd_feature", student, teacher) == pytest.approx(4**2 * divergence / 2)


# What they are to one another


@pytest.mark.parametrize("training", [True, False])
def test_lad_is_attnfd_without_gates(training: bool) -> None:
    lad = make("lad").train(training)
    attnfd = AttnFD(
        AttnFD.Settings(
            layers=LAYERS,
            loss_weight=1,
            norm="batch",
            student_gate="identity",
            teacher_gate="identity",
        ),
        CHANNELS,
    )
    attnfd.double().train(training).connectors = copy.deepcopy(lad.connectors)
    student, teacher = (
        features(CHANNELS.student_channels, 1),
        features(CHANNELS.teacher_channels, 2),
    )
    ours, theirs = (list(method(student, teacher, LABELS).values()) for method in (lad, attnfd))
    assert [term.item() for term in ours] == [term.item() for term in theirs]


def test_lad_and_pad_are_one_for_a_single_pixel() -> None:
    student, teacher = [[[[1]], [[2]]]], [[[[5]], [[-1]]]]
    assert value("lad", student, teacher) == pytest.approx(value("pad", student, teacher))


@pytest.mark.parametrize("name", ["lad", "pad", "cad", "at"])
def test_scaling_the_students_features_changes_nothing(name: str) -> None:
    method = without_connectors(name)
    student, teacher = features(SAME.student_channels, 1), features(SAME.teacher_channels, 2)
    plain, scaled = (
        method({"aspp": factor * student["aspp"]}, teacher, LABELS)[f"{name}/aspp"].item()
        for factor in (1, 7)
    )
    assert plain > 1e-3
    assert scaled == pytest.approx(plain, rel=1e-9)  # float64


@pytest.mark.parametrize("name", ["fitnet", "naive"])
def test_scaling_raw_features_changes_their_distance(name: str) -> None:
    student, teacher = (
        features(SAME.student_channels, 1)["aspp"],
        features(SAME.teacher_channels, 2)["aspp"],
    )
    assert squared_error(2 * student, 2 * teacher).item() == pytest.approx(
        4 * squared_error(student, teacher).item()
    )


def test_channel_wise_divergence_does_not_mind_a_shift_of_each_channel() -> None:
    method = without_connectors("cwd_feature")
    student, teacher = features(SAME.student_channels, 1), features(SAME.teacher_channels, 2)
    shift = torch.tensor([3.0, -8.0], dtype=torch.float64)[:, None, None]
    plain, shifted = (
        method({"aspp": student["aspp"] + by}, teacher, LABELS)["cwd_feature/aspp"].item()
        for by in (0, shift)
    )
    assert shifted == pytest.approx(plain, rel=1e-9)  # float64


@pytest.mark.parametrize("name", ["lad", "pad", "cad"])
def test_an_angular_distance_is_at_most_four(name: str) -> None:
    student = features(SAME.student_channels, 1)
    terms = without_connectors(name)(student, {"aspp": -student["aspp"]}, LABELS)
    assert terms[f"{name}/aspp"].item() == pytest.approx(4)


# Connectors and settings


def parts(module: nn.Module) -> list[str]:
    return [type(each).__name__ for each in module.modules() if not list(each.children())]


@pytest.mark.parametrize(
    ("name", "widened", "kept"),
    [
        ("fitnet", ["Conv2d"], ["Conv2d"]),
        ("at", ["Identity"], ["Identity"]),
        ("cwd_feature", ["Conv2d"], ["Identity"]),
        ("lad", ["Conv2d", "BatchNorm2d"], ["Conv2d", "BatchNorm2d"]),
        ("pad", ["Conv2d", "BatchNorm2d"], ["Conv2d", "BatchNorm2d"]),
        ("cad", ["Conv2d", "BatchNorm2d"], ["Conv2d", "BatchNorm2d"]),
        ("naive", ["Conv2d", "BatchNorm2d"], ["Conv2d", "BatchNorm2d"]),
    ],
)
def test_a_method_has_the_connectors_it_was_published_with(
    name: str, widened: list[str], kept: list[str]
) -> None:
    method: Any = make(name)
    assert parts(method.connectors["aspp"]) == widened
    assert parts(method.connectors["decoder"]) == kept
    assert not any(name.endswith("0.bias") for name, _ in method.connectors.named_parameters())


@pytest.mark.parametrize("name", METHODS)
def test_each_layer_is_a_term(name: str) -> None:
    method = make(name)
    terms = method(
        features(CHANNELS.student_channels, 1), features(CHANNELS.teacher_channels, 2), LABELS
    )
    assert list(terms) == [f"{name}/aspp", f"{name}/decoder"]
    assert registry.load("method", name).taps(method.settings) == ("aspp", "decoder")


def test_the_published_weights_are_the_defaults_where_there_are_any() -> None:
    weights = {name: registry.load("method", name).Settings().loss_weight for name in METHODS}
    assert (weights["fitnet"], weights["at"], weights["cwd_feature"]) == (10, 10_000, 50)
    assert (
        weights["lad"] == 10
    )  # the published loss and its cross-entropy are both divided by the batch
    layers = {name: registry.load("method", name).Settings().layers for name in METHODS}
    assert layers["fitnet"] == layers["at"] == layers["cwd_feature"] == ["decoder"]
    assert (
        layers["lad"]
        == layers["pad"]
        == layers["cad"]
        == layers["naive"]
        == ["stage4", "aspp", "decoder"]
    )


@pytest.mark.parametrize("name", [*METHODS, "ofd"])
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"layers": []}, "at least 1 item"),
        ({"layers": ["stage4", "stage4"]}, r"a layer is listed twice in \['stage4', 'stage4'\]"),
        ({"loss_weight": -1}, "greater than or equal to 0"),
        ({"name": "kd"}, "Input should be"),
    ],
)
def test_settings_out_of_range_are_refused(
    name: str, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        registry.load("method", name).Settings(**changes)
