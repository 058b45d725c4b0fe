"""The gradients of the loss terms: the numbers are right, and measuring changes nothing."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from train_runs import (
    CPU,
    Batch,
    differing_paths,
    experiment,
    final_state,
    make_run,
    on_workers,
    plain,
    train,
    uneven_batch,
)

from attnfd_ray.config.gradients import gradient_ratio
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.train import checkpoint
from attnfd_ray.train.distributed import rank, world_size
from attnfd_ray.train.gradients import GradientMeter
from attnfd_ray.train.step import StepRunner

NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)
TERMS = {"cross_entropy", "attnfd/stage4", "attnfd/decoder", "distillation"}


def two_weights() -> tuple[nn.Linear, Tensor, Tensor]:
    """Return a student of two weights, and each of them as a scalar that depends on it."""
    student = nn.Linear(2, 1, bias=False)
    return student, student.weight[0, 0], student.weight[0, 1]


def measured(
    student: nn.Module, *batches: dict[str, Tensor], scaler: Any = NO_SCALER
) -> GradientMeter:
    meter = GradientMeter(student, steps=1, checks=1)
    for terms in batches:
        meter.measure(terms, scaler)
    return meter


# ---- numbers that are known exactly


def test_norms_and_cosines_of_a_linear_student_are_exact() -> None:
    student, first, second = two_weights()
    # gradients (3, 0), (0, 4) and (-1, 0); the last two together (-1, 4)
    meter = measured(student, {"cross_entropy": 3 * first, "kd": 4 * second, "at": -first})
    assert meter.norms == pytest.approx(
        {"cross_entropy": 3, "kd": 4, "at": 1, "distillation": math.sqrt(17)}
    )
    assert meter.cosines == pytest.approx({"kd": 0, "at": -1, "distillation": -1 / math.sqrt(17)})
    assert gradient_ratio(meter.norms) == pytest.approx(math.sqrt(17) / 3)


def test_several_checks_are_averaged() -> None:
    student, first, second = two_weights()
    batches = [{"cross_entropy": 2 * first, "kd": weight * second + first} for weight in (0.0, 1.0)]
    meter = measured(student, *batches)
    assert meter.norms["kd"] == pytest.approx((1 + math.sqrt(2)) / 2)
    assert meter.cosines["kd"] == pytest.approx((1 + 1 / math.sqrt(2)) / 2)


def test_only_parameters_of_the_student_that_learn_count() -> None:
    student, gate = nn.Linear(1, 1), nn.Linear(1, 1)
    student.bias.requires_grad_(False)
    both = student.weight.sum() + 7 * student.bias.sum()
    meter = measured(student, {"cross_entropy": both, "kd": 2 * both + 9 * gate.weight.sum()})
    assert meter.norms == {"cross_entropy": 1, "kd": 2, "distillation": 2}


@pytest.mark.parametrize("constant", [True, False], ids=["without a graph", "of other parameters"])
def test_a_term_that_does_not_reach_the_student_has_a_gradient_of_zero(constant: bool) -> None:
    student, first, second = two_weights()
    idle = torch.tensor(5.0) if constant else nn.Linear(1, 1).weight.sum()
    meter = measured(student, {"cross_entropy": first, "idle": idle, "kd": second + first})
    assert meter.norms == pytest.approx(
        {"cross_entropy": 1, "idle": 0, "kd": math.sqrt(2), "distillation": math.sqrt(2)}
    )
    assert meter.cosines.keys() == {"kd", "distillation"}


def test_a_cross_entropy_without_a_gradient_gives_neither_a_ratio_nor_a_cosine() -> None:
    student, first, second = two_weights()
    meter = measured(student, {"cross_entropy": 0 * first, "kd": second})
    assert meter.norms == {"cross_entropy": 0, "kd": 1, "distillation": 1}
    assert meter.cosines == {}
    assert gradient_ratio(meter.norms) is None


def test_the_scale_of_half_precision_changes_no_number() -> None:
    student, first, second = two_weights()
    terms = {"cross_entropy": 3 * first, "kd": 4 * second + first}
    scaled = measured(student, terms, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**16))
    unscaled = measured(student, terms)
    # scaling by a power of two changes no digit
    assert (scaled.norms, scaled.cosines) == (unscaled.norms, unscaled.cosines)


def test_a_check_at_which_a_gradient_overflows_is_left_out() -> None:
    student, first, second = two_weights()
    finite, infinite = (
        {"cross_entropy": first, "kd": factor * second} for factor in (2.0, math.inf)
    )
    assert measured(student, infinite).norms == {}
    meter = measured(student, finite, infinite)
    assert (meter.norms["kd"], meter.cosines["kd"]) == (2, 0)


@pytest.mark.parametrize(
    ("steps", "checks", "due"),
    [
        (50, 1, {50}),
        (50, 2, {25, 50}),
        (5, 2, {3, 5}),
        (7, 3, {3, 5, 7}),
        (2, 9, {1, 2}),
        (1, 1, {1}),
        (5, 0, set()),
    ],
)
def test_checks_are_evenly_spaced_and_the_last_is_at_the_last_step(
    steps: int, checks: int, due: set[int]
) -> None:
    assert GradientMeter(nn.Linear(1, 1), steps=steps, checks=checks).due_steps == due


# ---- in a run


def test_an_epoch_says_the_gradient_of_each_term(toys: Path, tmp_path: Path) -> None:
    _, records = train(experiment(toys), tmp_path)
    for record in records:
        assert record.gradient_norms.keys() == TERMS
        assert record.gradient_cosines.keys() == TERMS - {"cross_entropy"}
        assert all(norm > 0 for norm in record.gradient_norms.values())
        assert all(-1 <= cosine <= 1 for cosine in record.gradient_cosines.values())


def test_the_distillation_gradient_grows_with_the_loss_weight(toys: Path, tmp_path: Path) -> None:
    ratios = []
    for weight in (1.0, 8.0):
        settings = experiment(
            toys, method__loss_weight=weight, train__epochs=1, train__steps_per_epoch=1
        )
        outcome, _ = train(settings, tmp_path / str(weight))
        ratios.append(gradient_ratio(outcome.last.gradient_norms))
    assert ratios[1] == pytest.approx(
        8 * ratios[0], rel=1e-5
    )  # the first step of the same run, float32


@pytest.mark.parametrize("make", [plain, experiment], ids=["method none", "no checks"])
def test_a_run_that_has_nothing_to_measure_makes_no_further_backward_pass(
    make: Any, toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a gradient was taken")

    monkeypatch.setattr(torch.autograd, "grad", never)
    outcome, _ = train(make(toys, train__gradient_checks=int(make is plain)), tmp_path)
    assert (outcome.last.gradient_norms, outcome.last.gradient_cosines) == ({}, {})


def test_nothing_is_measured_in_an_epoch_in_which_the_student_rests(
    toys: Path, tmp_path: Path
) -> None:
    method = {"name": "attnfd", "layers": ["stage4", "decoder"], "connectors": "first_epoch"}
    _, records = train(experiment(toys, method=method), tmp_path)
    assert records[0].gradient_norms == {}
    assert records[1].gradient_norms.keys() == TERMS


def one_step(
    settings: ExperimentSettings, directory: Path, batch: Batch
) -> tuple[GradientMeter, Tensor]:
    """Run a measured step on this worker's share of `batch`.

    In float64, with BatchNorm in eval mode. Return the meter, and the student's whole gradient as
    the optimiser got it, as one vector.
    """
    run = make_run(settings, directory)
    run.task.eval().double()
    assert run.teacher is not None
    run.teacher.double()
    gradients: list[Tensor] = []
    run.optimizer.register_step_pre_hook(
        lambda *_: gradients.extend(
            p.grad.flatten().clone() for p in run.student.parameters() if p.grad is not None
        )
    )
    stepper = StepRunner(
        run.task, run.teacher, run.optimizer, run.scaler, settings, device=CPU, total=1
    )
    meter = GradientMeter(run.student, steps=1, checks=1)
    images, labels = (tensor.chunk(world_size())[rank()] for tensor in batch)
    stepper.epoch([(images.double(), labels)], first_step=0, gradients=meter)
    return meter, torch.cat(gradients)


def numbers(settings: ExperimentSettings, directory: Path, batch: Batch) -> list[dict[str, float]]:
    meter, gradient = one_step(settings, directory, batch)
    return [meter.norms, meter.cosines, {"whole": float(gradient.norm())}]


def test_the_terms_add_up_to_the_gradient_that_the_optimiser_gets(
    toys: Path, tmp_path: Path
) -> None:
    meter, gradient = one_step(experiment(toys), tmp_path, uneven_batch())
    one, other = meter.norms["cross_entropy"], meter.norms["distillation"]
    squared = one**2 + other**2 + 2 * one * other * meter.cosines["distillation"]  # law of cosines
    assert math.sqrt(squared) == pytest.approx(
        float(gradient.norm()), rel=1e-9
    )  # float64 throughout


@pytest.mark.slow
def test_two_workers_measure_the_gradients_of_the_whole_batch(toys: Path, tmp_path: Path) -> None:
    whole = numbers(experiment(toys), tmp_path / "one", uneven_batch())
    settings = experiment(toys, train__batch_size=8)
    first, second = on_workers(
        2, tmp_path / "two", numbers, settings, tmp_path / "run", uneven_batch()
    )
    assert first == second
    for ours, theirs in zip(first, whole, strict=True):
        # parameters are double, but the cross-entropy is summed in single precision
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)


# ---- measuring changes nothing


def trained(settings: ExperimentSettings, directory: Path) -> dict[str, float]:
    outcome, _ = train(settings, directory)
    return outcome.last.gradient_norms


VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "in parts": {"train__accumulate": 2},
    "bf16": {"train__precision": "bf16"},
    "fp16": {"train__precision": "fp16"},
    "released form": {"method": {"name": "attnfd_release", "layers": ["stage4", "decoder"]}},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_run_ends_with_the_same_bits_however_often_it_measures(
    changes: dict[str, Any], toys: Path, tmp_path: Path
) -> None:
    for checks in (0, 2):  # of two steps
        found = trained(
            experiment(toys, train__gradient_checks=checks, **changes), tmp_path / str(checks)
        )
        assert bool(found) == bool(checks)
    # weights, BatchNorm statistics, momentum, the scale of fp16
    assert differing_paths(final_state(tmp_path / "0"), final_state(tmp_path / "2")) == []


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_workers_end_with_the_same_bits_however_often_they_measure(
    accumulate: int, toys: Path, tmp_path: Path
) -> None:
    for checks in (0, 2):
        settings = experiment(
            toys, train__batch_size=8, train__steps_per_epoch=2, train__accumulate=accumulate,
            train__gradient_checks=checks, scaling__workers=2,
        )  # fmt: skip
        first, second = on_workers(
            2, tmp_path / f"workers{checks}", trained, settings, tmp_path / str(checks)
        )
        assert first == second
        assert bool(first) == bool(checks)
    assert differing_paths(final_state(tmp_path / "0"), final_state(tmp_path / "2")) == []


def test_measuring_leaves_gradients_statistics_and_random_numbers_alone() -> None:
    student = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    features = student(torch.randn(2, 3, 5, 5))
    before = (
        torch.get_rng_state(),
        {name: tensor.clone() for name, tensor in student.state_dict().items()},
    )
    measured(student, {"cross_entropy": features.sum(), "kd": features.square().mean()})
    assert torch.equal(torch.get_rng_state(), before[0])
    assert differing_paths(dict(student.state_dict()), before[1]) == []
    assert all(parameter.grad is None for parameter in student.parameters())


# ---- checkpoints


def test_a_checkpoint_of_a_version_that_did_not_measure_goes_on(toys: Path, tmp_path: Path) -> None:
    settings = experiment(toys)
    make_run(settings, tmp_path / "run").run(lambda record: record.epoch == 1)
    found = checkpoint.latest(tmp_path / "run/checkpoints")
    assert found is not None
    known = {
        name: value for name, value in found.record.items() if not name.startswith("gradient_")
    }
    assert len(known) == len(found.record) - 2
    checkpoint.save(tmp_path / "run/checkpoints", epoch=1, state=found.load(), record=known)
    run = make_run(settings, tmp_path / "run")
    assert run.last is not None
    assert (run.last.epoch, run.last.gradient_norms, run.last.gradient_cosines) == (1, {}, {})
    assert run.run(lambda record: False).last.gradient_norms.keys() == TERMS


def test_what_was_measured_is_kept_in_the_checkpoint(toys: Path, tmp_path: Path) -> None:
    outcome, _ = train(experiment(toys), tmp_path)
    found = checkpoint.latest(tmp_path / "checkpoints")
    assert found is not None
    assert found.record == dataclasses.asdict(outcome.last)
