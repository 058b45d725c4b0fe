"""The learning rate of each parameter, and that none is forgotten (promise 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_runs import experiment, make_run, plain, train

from attnfd_ray import registry
from attnfd_ray.config.schema import ModelSettings, OptimSettings
from attnfd_ray.distill.none import NoDistillation
from attnfd_ray.models import build_model
from attnfd_ray.train.optim import build_optimizer, check_groups, set_learning_rate
from attnfd_ray.train.task import DistillationTask


def grouped(optimizer: torch.optim.Optimizer) -> list[list[int]]:
    return [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenet_v2"])
@pytest.mark.parametrize("method", sorted(registry.TABLES["method"]))
def test_whatever_learns_is_in_exactly_one_group(
    method: str, backbone: str, toys: Path, tmp_path: Path
) -> None:
    settings = {"name": method} | (
        {"terms": [{"name": "lad", "weight": 1.0}]} if method == "sum" else {}
    )
    run = make_run(experiment(toys, method=settings, student__backbone=backbone), tmp_path)
    slow, fast = grouped(run.optimizer)
    assert sorted(slow) == sorted(id(parameter) for parameter in run.student.backbone.parameters())
    learning = [parameter for parameter in run.task.parameters() if parameter.requires_grad]
    assert sorted(slow + fast) == sorted(map(id, learning))
    assert {id(parameter) for parameter in run.student.parameters()} <= set(slow + fast)
    assert run.teacher is None or not {
        id(parameter) for parameter in run.teacher.parameters()
    } & set(slow + fast)


def test_gates_and_connectors_learn_from_the_first_step(toys: Path, tmp_path: Path) -> None:
    run = make_run(experiment(toys, train__epochs=1), tmp_path)
    before = {name: parameter.clone() for name, parameter in run.task.named_parameters()}
    run.run(lambda _: False)
    learned = {
        name
        for name, parameter in run.task.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    assert learned == {
        name for name, parameter in run.task.named_parameters() if parameter.requires_grad
    }
    for part in (
        "student_gates.stage4.channel.mlp.0",
        "student_gates.decoder.spatial.conv",
        "connectors.stage4.0",
    ):
        assert f"method.{part}.weight" in learned


class TestCheckGroups:
    @pytest.fixture
    def task(self) -> nn.Module:
        return nn.ModuleDict({"student": nn.Linear(2, 2), "gate": nn.Linear(2, 2, bias=False)})

    def test_says_what_is_in_no_group(self, task: nn.Module) -> None:
        optimizer = torch.optim.SGD(task.get_submodule("student").parameters(), lr=1.0)
        with pytest.raises(AssertionError, match=r"^in no optimiser group: gate\.weight$"):
            check_groups(task, optimizer)

    def test_finds_what_is_in_two_groups(self, task: nn.Module) -> None:
        optimizer = torch.optim.SGD(task.parameters(), lr=1.0)
        # torch refuses doubles where it is asked, so a careless hand has to go past it
        optimizer.param_groups.append({"params": [task.get_parameter("gate.weight")]})
        with pytest.raises(AssertionError, match=r"^a parameter is in two optimiser groups$"):
            check_groups(task, optimizer)

    def test_finds_what_does_not_learn(self, task: nn.Module) -> None:
        optimizer = torch.optim.SGD(task.parameters(), lr=1.0)
        task.get_parameter("gate.weight").requires_grad_(False)
        with pytest.raises(
            AssertionError, match=r"^an optimiser group holds a parameter that is not trained$"
        ):
            check_groups(task, optimizer)

    def test_is_content_with_each_once(self, task: nn.Module) -> None:
        check_groups(task, torch.optim.SGD(task.parameters(), lr=1.0))


def make_optimizer(**settings: Any) -> torch.optim.SGD:
    torch.manual_seed(0)
    student = build_model(ModelSettings(width=0.125), num_classes=3)
    return build_optimizer(
        DistillationTask(student, NoDistillation(), ()), OptimSettings(**settings)
    )


def test_heads_learn_faster_by_the_factor() -> None:
    optimizer = make_optimizer(lr=0.02, head_lr_factor=5.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, pytest.approx(0.1)]


def test_momentum_nesterov_and_weight_decay_are_those_of_the_settings() -> None:
    optimizer = make_optimizer(momentum=0.8, nesterov=True, weight_decay=3e-4)
    for group in optimizer.param_groups:
        assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.8, True, 3e-4)
    assert not make_optimizer().param_groups[0]["nesterov"]


def test_a_nesterov_step_is_what_a_pencil_gives() -> None:
    optimizer = make_optimizer(
        lr=0.1, head_lr_factor=1.0, momentum=0.5, nesterov=True, weight_decay=0.01
    )
    parameter = optimizer.param_groups[0]["params"][0]
    parameter.data.fill_(1.0)
    for gradient in (2.0, 4.0):
        parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
    # g1 = 2 + 0.01 * 1 = 2.01, v1 = g1, w1 = 1 - 0.1 (g1 + 0.5 v1) = 0.6985
    # g2 = 4 + 0.01 w1 = 4.006985, v2 = 0.5 v1 + g2 = 5.011985
    # w2 = w1 - 0.1 (g2 + 0.5 v2) = 0.04720225
    assert parameter.unique().tolist() == pytest.approx([0.04720225], rel=1e-6)  # float32


def test_the_poly_schedule_is_what_a_pencil_gives() -> None:
    settings = OptimSettings(lr=0.01, head_lr_factor=10.0, schedule="poly", poly_power=0.9)
    optimizer = make_optimizer(**settings.model_dump())
    # (1 - step/4) ^ 0.9
    for step, factor in enumerate([1.0, 0.771889, 0.535887, 0.287175]):
        assert set_learning_rate(optimizer, settings, step=step, total=4) == pytest.approx(
            0.01 * factor, rel=1e-5
        )
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
            [0.01 * factor, 0.1 * factor], 1e-5
        )


def test_a_constant_schedule_stays() -> None:
    settings = OptimSettings(lr=0.01, schedule="constant")
    optimizer = make_optimizer(**settings.model_dump())
    rates = [set_learning_rate(optimizer, settings, step=step, total=10) for step in (0, 5, 9)]
    assert rates == [0.01] * 3


def test_the_schedule_runs_over_the_whole_run_and_not_over_an_epoch(
    toys: Path, tmp_path: Path
) -> None:
    _, records = train(plain(toys, train__epochs=2, optim__lr=0.01), tmp_path)
    # two epochs of two steps; a record has the rate of the epoch's last step
    assert [record.lr for record in records] == pytest.approx(
        [0.01 * 0.771889, 0.01 * 0.287175], rel=1e-5
    )
