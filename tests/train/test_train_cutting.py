"""Promise 3: the loss and its gradient do not depend on how a global batch is split.

BatchNorm and dropout are in eval mode here: their result on a part is not that on the whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from train_runs import (
    Batch,
    differing_paths,
    experiment,
    final_state,
    make_run,
    on_workers,
    plain,
    run_in_double,
    train,
    uneven_batch,
)

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.train import step
from attnfd_ray.train.distributed import rank, world_size
from attnfd_ray.train.step import StepRunner

Answer = tuple[dict[str, float], dict[str, Tensor]]

# networks and gradients are in double precision, but the cross-entropy is summed in single
TOLERANCE = 1e-6


def one_step(settings: ExperimentSettings, directory: Path, batch: Batch) -> Answer:
    """Run a step on this worker's share of `batch`.

    Return its loss terms over all workers, and the gradients.
    """
    run = make_run(settings, directory)
    run.task.eval()
    gradients: dict[str, Tensor] = {}

    def keep_gradients(*_: Any) -> None:
        gradients.update(
            {name: p.grad for name, p in run.task.named_parameters() if p.grad is not None}
        )

    run.optimizer.register_step_pre_hook(keep_gradients)
    images, labels = (tensor.chunk(world_size())[rank()] for tensor in batch)
    return run_in_double(run, (images, labels)), gradients


def assert_same(ours: Answer, theirs: Answer) -> None:
    assert ours[0].keys() == theirs[0].keys()
    for name, term in ours[0].items():
        assert term == pytest.approx(theirs[0][name], rel=TOLERANCE), name
    assert ours[1].keys() == theirs[1].keys()
    scale = max(gradient.abs().max().item() for gradient in theirs[1].values())
    for name, gradient in ours[1].items():
        assert (gradient - theirs[1][name]).abs().max() <= TOLERANCE * scale, name


LAYERS = ["stage4", "decoder"]
# one loss of sums over the batch, one that is a mean over images, and both kinds together
every_kind = pytest.mark.parametrize(
    "method",
    [
        {"name": "attnfd", "layers": LAYERS, "norm": "batch"},
        {"name": "attnfd", "layers": LAYERS, "norm": "batch", "squared": False},
        {"name": "attnfd", "layers": LAYERS, "norm": "image"},
        {"name": "sum", "terms": [{"name": "lad", "layers": LAYERS}, {"name": "kd"}]},
    ],
    ids=["batch", "batch-unsquared", "image", "sum"],
)


@every_kind
@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_computed_in_parts_gives_the_loss_and_gradient_of_the_whole(
    parts: int, method: dict[str, Any], toys: Path, tmp_path: Path
) -> None:
    whole = one_step(experiment(toys, method=method), tmp_path, uneven_batch())
    # a rule for settings needs two images per part for BatchNorm, which is in eval mode here
    settings = experiment(toys, method=method, train__batch_size=2 * parts, train__accumulate=parts)
    assert len(whole[1]) > 60
    assert_same(one_step(settings, tmp_path, uneven_batch()), whole)


def by_image(root: Path, **changes: Any) -> ExperimentSettings:
    """Return AttnFD with a norm per image: its workers do not communicate in the forward pass."""
    return experiment(root, method__norm="image", **changes)


@pytest.mark.parametrize("make", [by_image, plain], ids=["attnfd", "none"])
@pytest.mark.parametrize(("workers", "accumulate"), [(2, 1), (2, 2), (4, 1)])
def test_the_mean_over_workers_is_the_loss_and_gradient_of_the_whole_batch(
    make: Any,
    workers: int,
    accumulate: int,
    toys: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = uneven_batch()
    whole = one_step(make(toys), tmp_path, (images, labels))
    settings = make(toys, train__batch_size=8, train__accumulate=accumulate)

    labelled = float((labels != 255).sum())
    monkeypatch.setattr(step, "world_size", lambda: workers)
    answers = []
    for part in zip(images.chunk(workers), labels.chunk(workers), strict=True):
        sums = iter([lambda _: torch.tensor(labelled), lambda own: own * workers])
        monkeypatch.setattr(step, "all_reduce_sum", lambda tensor, sums=sums: next(sums)(tensor))
        answers.append(one_step(settings, tmp_path, part))
    terms = {name: sum(answer[0][name] for answer in answers) / workers for name in whole[0]}
    gradients = {name: sum(answer[1][name] for answer in answers) / workers for name in whole[1]}
    assert_same((terms, gradients), whole)  # type: ignore[arg-type]


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_real_workers_give_the_loss_and_gradient_of_one(
    accumulate: int, method: dict[str, Any], toys: Path, tmp_path: Path
) -> None:
    whole = one_step(experiment(toys, method=method), tmp_path / "one", uneven_batch())
    settings = experiment(toys, method=method, train__batch_size=8, train__accumulate=accumulate)
    first, second = on_workers(
        2, tmp_path / "two", one_step, settings, tmp_path / "run", uneven_batch()
    )
    assert differing_paths(first, second) == []
    assert_same(first, whole)


def test_the_loss_weight_means_the_same_at_any_batch_size(toys: Path, tmp_path: Path) -> None:
    images, labels = uneven_batch()
    terms, _ = one_step(experiment(toys), tmp_path, (images, labels))
    twice, _ = one_step(
        experiment(toys), tmp_path, (images.repeat(2, 1, 1, 1), labels.repeat(2, 1, 1))
    )
    assert twice == pytest.approx(terms, rel=TOLERANCE)


def test_looking_at_all_parts_first_changes_neither_statistics_nor_random_numbers(
    toys: Path, tmp_path: Path
) -> None:
    images, labels = uneven_batch()
    settings = experiment(toys, train__accumulate=2)
    run = make_run(settings, tmp_path)
    collected: list[bool] = []
    stepper = StepRunner(
        run.task, run.teacher, run.optimizer, run.scaler, settings, device=run.device, total=1
    )
    collect = stepper._collect

    def watched(*arguments: Any, **named: Any) -> None:
        run.task.train()
        buffers = {name: buffer.clone() for name, buffer in run.task.named_buffers()}
        state = torch.get_rng_state()
        collect(*arguments, **named)
        collected.append(
            torch.equal(torch.get_rng_state(), state)
            and all(torch.equal(buffer, buffers[name]) for name, buffer in run.task.named_buffers())
        )

    stepper._collect = watched  # type: ignore[method-assign]
    stepper.step(images[:4], labels[:4])
    assert collected == [True]


def test_a_method_that_forgets_to_declare_its_batch_sums_is_refused_and_not_wrong(
    toys: Path, tmp_path: Path
) -> None:
    images, labels = uneven_batch()
    run = make_run(experiment(toys, train__accumulate=2), tmp_path)
    run.task.method.uses_batch_sums = False
    stepper = StepRunner(
        run.task, run.teacher, run.optimizer, run.scaler, run.settings, device=run.device, total=1
    )
    with pytest.raises(
        ConfigError, match=r"calls batch_sum, so its class needs uses_batch_sums = True"
    ):
        stepper.step(images[:4], labels[:4])


def test_a_batch_without_a_labelled_pixel_is_no_loss_and_no_nan(toys: Path, tmp_path: Path) -> None:
    images, labels = uneven_batch()
    terms, gradients = one_step(plain(toys), tmp_path, (images, torch.full_like(labels, 255)))
    assert terms == {"cross_entropy": 0.0}
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_a_loss_weight_of_0_is_the_plain_student_bit_for_bit(toys: Path, tmp_path: Path) -> None:
    without, _ = train(plain(toys), tmp_path / "none")
    weightless, _ = train(experiment(toys, method__loss_weight=0.0), tmp_path / "weightless")
    distilled, _ = train(experiment(toys), tmp_path / "attnfd")
    assert (
        differing_paths(final_state(tmp_path / "none"), final_state(tmp_path / "weightless")) == []
    )
    assert without.best_weights.read_bytes() == weightless.best_weights.read_bytes()
    assert without.best_weights.read_bytes() != distilled.best_weights.read_bytes()
    assert vars(without.last)["loss_terms"] == vars(weightless.last)["loss_terms"]
