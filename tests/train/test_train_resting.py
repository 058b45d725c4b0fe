"""What a method asks of the training loop.

Frozen parameters per epoch, the mode of the teacher, and division by the batch size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from train_runs import (
    differing_paths,
    experiment,
    final_state,
    make_run,
    run_in_double,
    train,
    uneven_batch,
)

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.train.records import EpochRecord
from attnfd_ray.train.trainer import Trainer

RELEASE = {"name": "attnfd_release", "layers": ["stage4", "decoder"]}
FIRST_EPOCH = {"name": "attnfd", "layers": ["stage4", "decoder"], "connectors": "first_epoch"}
CONNECTORS, GATES, STUDENT = "method.connectors.", "method.student_gates.", "student."


def weights(run: Trainer) -> dict[str, Tensor]:
    """Return a copy of every parameter of the task.

    Without statistics, which every forward pass changes.
    """
    return {name: parameter.detach().clone() for name, parameter in run.task.named_parameters()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Return which of the three kinds of parameters have changed, all of a kind or none."""
    found = set()
    for kind in (CONNECTORS, GATES, STUDENT):
        changed = [
            not torch.equal(tensor, after[name])
            for name, tensor in before.items()
            if name.startswith(kind)
        ]
        assert changed, kind
        assert all(changed) or not any(changed), kind
        if any(changed):
            found.add(kind)
    return found


def moved_by_epoch(
    settings: ExperimentSettings, directory: Path, epochs: int = 99
) -> list[set[str]]:
    """Resume from `directory` for at most `epochs`; return the kinds that changed in each."""
    run = make_run(settings, directory)
    states, found = [weights(run)], []

    def report(record: EpochRecord) -> bool:
        states.append(weights(run))
        found.append(moved(states[-2], states[-1]))
        return len(found) == epochs

    run.run(report)
    return found


def test_resting_parameters_stay_bit_for_bit_and_all_others_move(
    toys: Path, tmp_path: Path
) -> None:
    settings = experiment(toys, method=FIRST_EPOCH, train__epochs=3)
    assert moved_by_epoch(settings, tmp_path) == [{CONNECTORS}, {GATES, STUDENT}, {GATES, STUDENT}]
    assert (
        moved_by_epoch(experiment(toys), tmp_path / "always") == [{CONNECTORS, GATES, STUDENT}] * 2
    )


@pytest.mark.slow
def test_who_rests_is_the_same_after_a_resume(toys: Path, tmp_path: Path) -> None:
    settings = experiment(toys, method=FIRST_EPOCH, train__epochs=3)
    assert moved_by_epoch(settings, tmp_path / "stopped", epochs=1) == [{CONNECTORS}]
    assert moved_by_epoch(settings, tmp_path / "stopped") == [{GATES, STUDENT}] * 2
    train(settings, tmp_path / "whole")
    assert differing_paths(final_state(tmp_path / "stopped"), final_state(tmp_path / "whole")) == []


def test_momentum_of_the_resting_is_kept_as_it_is(toys: Path, tmp_path: Path) -> None:
    run = make_run(experiment(toys, method=FIRST_EPOCH, train__epochs=2), tmp_path)
    connectors = list(run.task.method.connectors.parameters())
    momenta: list[list[Tensor]] = []

    def report(record: EpochRecord) -> bool:
        momenta.append(
            [run.optimizer.state[parameter]["momentum_buffer"].clone() for parameter in connectors]
        )
        assert all(parameter.grad is None for parameter in connectors)
        return False

    run.run(report)
    assert all(torch.equal(first, second) for first, second in zip(*momenta, strict=True))


def test_the_channel_mlp_of_the_release_is_in_no_group_of_the_optimiser_and_never_moves(
    toys: Path, tmp_path: Path
) -> None:
    run = make_run(experiment(toys, method=RELEASE), tmp_path)
    before = weights(run)
    grouped = {
        id(parameter) for group in run.optimizer.param_groups for parameter in group["params"]
    }
    mlps = {
        name: parameter
        for name, parameter in run.task.named_parameters()
        if ".channel.mlp." in name
    }
    of_student = [name for name in mlps if name.startswith(GATES)]
    assert len(of_student) == 2 * 4  # two layers, two linear maps with weight and bias
    assert not {id(parameter) for parameter in mlps.values()} & grouped
    run.run(lambda record: False)
    after = weights(run)
    assert all(torch.equal(before[name], after[name]) for name in mlps)
    assert not torch.equal(
        before[f"{GATES}decoder.spatial.conv.weight"], after[f"{GATES}decoder.spatial.conv.weight"]
    )


@pytest.mark.parametrize("mode", ["eval", "batch_statistics", "train"])
def test_the_teacher_runs_as_the_method_says_and_stays_bit_for_bit(
    mode: str, toys: Path, tmp_path: Path
) -> None:
    run = make_run(experiment(toys, method={**FIRST_EPOCH, "teacher_mode": mode}), tmp_path)
    assert run.teacher is not None
    norm = next(
        module for module in run.teacher.modules() if isinstance(module, torch.nn.BatchNorm2d)
    )
    assert norm.training == (mode != "eval")
    before = {name: tensor.clone() for name, tensor in run.teacher.state_dict().items()}
    run.run(lambda record: False)
    assert norm.training == (mode != "eval")
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in run.teacher.state_dict().items()
    )
    assert not any(
        parameter.requires_grad or parameter.grad is not None
        for parameter in run.teacher.parameters()
    )


def stepped(toys: Path, directory: Path, **changes: Any) -> tuple[Trainer, dict[str, float]]:
    """Run one step in double precision on a batch of four."""
    run = make_run(experiment(toys, **changes), directory)
    torch.manual_seed(0)  # dropout
    return run, run_in_double(run, uneven_batch())


def test_dividing_by_the_batch_divides_every_term(toys: Path, tmp_path: Path) -> None:
    plain, divided = (
        stepped(toys, tmp_path / str(by), method__divide_by_batch=by, method__norm="image")[1]
        for by in (False, True)
    )
    assert plain.keys() == divided.keys()
    assert "cross_entropy" in plain
    assert all(divided[name] == pytest.approx(term / 4, rel=1e-12) for name, term in plain.items())


@pytest.mark.parametrize("norm", ["image", "pixel", "batch"])
def test_the_same_sgd_without_the_division_is_lr_over_b_and_weight_decay_times_b(
    norm: str, toys: Path, tmp_path: Path
) -> None:
    """The released (CE + w sum) / b at (lr, wd) is CE + w sum at (lr / b, wd b).

    With momentum and with Nesterov's.
    """
    batch = 4
    divided = {"method__divide_by_batch": True, "optim__lr": 0.01, "optim__weight_decay": 5e-4}
    undivided = {"optim__lr": 0.01 / batch, "optim__weight_decay": 5e-4 * batch}
    released, converted = (
        make_run(
            experiment(toys, method__norm=norm, optim__nesterov=True, **changes), tmp_path / name
        )
        for name, changes in {"released": divided, "converted": undivided}.items()
    )
    start = {name: tensor.double() for name, tensor in weights(released).items()}
    for run in (released, converted):
        torch.manual_seed(0)  # dropout
        for _ in range(3):
            run_in_double(run, uneven_batch())
    ours, theirs = weights(released), weights(converted)
    assert any(not torch.equal(ours[name], tensor) for name, tensor in start.items())
    for name, tensor in ours.items():
        # float64 throughout, three steps whose sums are rounded in another order
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-9, atol=1e-11, msg=name)
