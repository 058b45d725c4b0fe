"""AttnFD as a whole: its terms, its settings, and who learns from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.distill.attnfd import AttnFD, normalised_distance
from attnfd_ray.distill.method import Networks

CHANNELS = Networks(student_channels={"aspp": 8, "decoder": 12}, teacher_channels={"aspp": 16, "decoder": 12})
LABELS = torch.zeros(2, 1, 1, dtype=torch.long)


def make(**settings: Any) -> AttnFD:
    torch.manual_seed(0)
    return AttnFD(AttnFD.Settings(layers=["aspp", "decoder"], **settings), CHANNELS)


def student_features(size: int = 6) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {layer: torch.randn((2, n, size, size), generator=rng) for layer, n in CHANNELS.student_channels.items()}


def teacher_features(size: int = 6) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(2)
    return {layer: torch.randn((2, n, size, size), generator=rng) for layer, n in CHANNELS.teacher_channels.items()}


def test_each_layer_is_a_term_weighted_by_the_loss_weight() -> None:
    light, heavy = (
        make(loss_weight=weight).eval()(student_features(), teacher_features(), LABELS) for weight in (1, 3)
    )
    assert list(light) == list(heavy) == ["attnfd/aspp", "attnfd/decoder"]
    assert all(heavy[name].item() == pytest.approx(3 * light[name].item(), rel=1e-6) for name in light)  # float32


def test_a_student_of_another_stride_is_brought_to_the_size_of_the_teacher() -> None:
    method = make(loss_weight=1, student_gate="identity", teacher_gate="identity").eval()
    student, teacher = student_features(4), teacher_features(6)
    terms = method(student, teacher, LABELS)
    for layer in ("aspp", "decoder"):
        guess = F.interpolate(method.connectors[layer](student[layer]), (6, 6), mode="bilinear", align_corners=False)
        assert torch.equal(terms[f"attnfd/{layer}"], normalised_distance(guess, teacher[layer], norm="image"))


@pytest.mark.parametrize("teacher_gate", ["parameter_free", "random_frozen", "identity"])
def test_nothing_flows_back_into_the_teacher(teacher_gate: str) -> None:
    method = make(teacher_gate=teacher_gate).train()
    before = {name: tensor.clone() for name, tensor in method.teacher_gates.state_dict().items()}
    teacher = {layer: feature.requires_grad_() for layer, feature in teacher_features().items()}
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1.0, weight_decay=0.1)
    torch.stack(list(method(student_features(), teacher, LABELS).values())).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert all(feature.grad is None for feature in teacher.values())
    assert not any(parameter.requires_grad for parameter in method.teacher_gates.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.teacher_gates.state_dict().items())


@pytest.mark.parametrize(
    ("student_gate", "expected"),
    [("learned", {"student_gates", "connectors"}), ("parameter_free", {"connectors"}), ("identity", {"connectors"})],
)
def test_what_learns_beside_the_student_is_its_gates_and_the_connectors(student_gate: str, expected: set[str]) -> None:
    method = make(student_gate=student_gate, teacher_gate="random_frozen")
    learning = {name.partition(".")[0] for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert learning == expected


def test_connectors_start_as_the_paper_of_their_kind_says() -> None:
    torch.manual_seed(0)
    method = AttnFD(
        AttnFD.Settings(layers=["stage4"]),
        Networks(student_channels={"stage4": 512}, teacher_channels={"stage4": 2048}),
    )
    conv, norm = method.connectors["stage4"].children()
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert (conv.weight.shape, conv.bias) == ((2048, 512, 1, 1), None)
    # N(0, sqrt(2 / 2048)); the spread of a million numbers is known to about a thousandth
    assert conv.weight.std().item() == pytest.approx((2 / 2048) ** 0.5, rel=5e-3)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"layers": []}, "at least 1 item"),
        ({"layers": ["aspp", "aspp"]}, r"a layer stands there twice in \['aspp', 'aspp'\]"),
        ({"loss_weight": -1}, "greater than or equal to 0"),
        ({"reduction_ratio": 0}, "greater than or equal to 1"),
        ({"norm": "pixel"}, "'image' or 'batch'"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        AttnFD.Settings(**changes)
