"""Promise 1: the teacher never learns and never changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.distill.teacher import FrozenTeacher, TeacherMode
from attnfd_ray.errors import ConfigError
from attnfd_ray.models import build_model

TAPS = ("stage1", "stage4", "aspp", "decoder", "logits")


def make(backbone: str = "resnet18", *, packed: bool = False) -> FrozenTeacher:
    torch.manual_seed(0)
    teacher = FrozenTeacher(
        build_model(ModelSettings(backbone=backbone, width=0.125), num_classes=4)
    )
    if packed:
        teacher.pack()
    teacher.set_taps(TAPS)
    return teacher


def images(seed: int = 0) -> Tensor:
    return torch.rand((2, 3, 33, 33), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenet_v2"])
def test_it_stays_bit_for_bit_whatever_mode_its_parent_is_put_in(
    backbone: str, packed: bool
) -> None:
    teacher = make(backbone, packed=packed)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    assert any("running_mean" in name for name in before)
    answers = teacher(images())
    parent = nn.ModuleDict({"teacher": teacher, "student": nn.Linear(1, 1)})
    for step in range(4):
        parent.train()
        teacher.train(True)
        teacher.network.train()
        teacher.train(True)
        given = images(step).requires_grad_()
        features = teacher(given)
        assert list(features) == list(TAPS)
        assert not any(feature.requires_grad for feature in features.values())
    assert not any(
        module.training for module in teacher.modules()
    )  # so dropout and BatchNorm are at rest
    assert not any(
        parameter.requires_grad or parameter.grad is not None for parameter in teacher.parameters()
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(torch.equal(feature, answers[tap]) for tap, feature in teacher(images()).items())


def test_a_students_gradient_stops_before_it() -> None:
    teacher, given = make(), images().requires_grad_()
    scale = torch.ones((), requires_grad=True)
    (scale * teacher(given)["aspp"]).sum().backward()
    assert scale.grad is not None
    assert given.grad is None


def test_it_answers_for_the_taps_last_asked_for() -> None:
    teacher = make()
    teacher.set_taps(["stage2"])
    assert list(teacher(images())) == ["stage2"]
    with pytest.raises(ConfigError, match="unknown tap 'stage5'; did you mean 'stage4'"):
        teacher.set_taps(["stage5"])


def test_answers_given_before_stay_whole() -> None:
    teacher = make()
    first = teacher(images(1))
    kept = {tap: feature.clone() for tap, feature in first.items()}
    teacher(images(2))
    assert all(torch.equal(feature, kept[tap]) for tap, feature in first.items())


MODES: list[TeacherMode] = ["eval", "batch_statistics", "train"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_whatever_its_mode_nothing_of_it_moves_or_learns(backbone: str, mode: TeacherMode) -> None:
    teacher = make(backbone).set_mode(mode)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    parent = nn.ModuleDict({"teacher": teacher})
    for step in range(3):
        parent.train(step % 2 == 0)
        given = images(step).requires_grad_()
        assert not any(feature.requires_grad for feature in teacher(given).values())
    assert not any(
        parameter.requires_grad or parameter.grad is not None for parameter in teacher.parameters()
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def answers(teacher: FrozenTeacher, seed: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return teacher(images())


def test_with_batch_statistics_it_normalises_by_the_batch_and_draws_nothing() -> None:
    teacher = make()
    still = answers(teacher)
    by_batch, again = (answers(teacher.set_mode("batch_statistics"), seed) for seed in (3, 4))
    assert not torch.allclose(by_batch["stage4"], still["stage4"])
    assert all(torch.equal(feature, again[tap]) for tap, feature in by_batch.items())
    # what follows a BatchNorm, before its ReLU, has the mean and the spread that the BatchNorm
    # says, over the batch
    teacher.set_taps(["aspp_pre"])
    feature = teacher(images())["aspp_pre"]
    assert feature.mean((0, 2, 3)).abs().max() < 1e-5  # float32


def test_in_train_mode_it_also_drops_out_and_so_depends_on_the_generator() -> None:
    teacher = make()
    by_batch = answers(teacher.set_mode("batch_statistics"))
    teacher.set_mode("train")
    first, again, other = (answers(teacher, seed) for seed in (3, 3, 4))
    assert torch.equal(first["stage4"], by_batch["stage4"])  # there is no dropout before it
    assert torch.equal(first["decoder"], again["decoder"])
    assert not torch.allclose(first["decoder"], other["decoder"])


def test_a_mode_is_left_as_it_is_entered() -> None:
    teacher = make()
    still = answers(teacher)
    for mode in MODES:
        answers(teacher.set_mode(mode))
    assert all(
        torch.equal(feature, still[tap])
        for tap, feature in answers(teacher.set_mode("eval")).items()
    )
