"""A run from its first epoch to its end: its records, its files, and its errors."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from train_runs import (
    TRAIN_IMAGES,
    Callback,
    differing_paths,
    experiment,
    final_state,
    make_run,
    plain,
    run_in_double,
    train,
    uneven_batch,
)

from attnfd_ray.distill.attnfd import AttnFD
from attnfd_ray.distill.method import Method
from attnfd_ray.errors import CheckpointError, Diverged, StoreError


def test_a_record_says_what_happened(toys: Path, tmp_path: Path) -> None:
    ticks = itertools.count(step=2.0)  # each reading of the clock is 2 s after the one before
    records = Callback()
    run = make_run(experiment(toys), tmp_path, clock=lambda: next(ticks))
    outcome = run.run(records)
    assert [record.epoch for record in records] == [1, 2]
    for record in records:
        assert record.epochs_total == 2
        assert list(record.loss_terms) == ["cross_entropy", "attnfd/stage4", "attnfd/decoder"]
        assert record.train_loss == pytest.approx(sum(record.loss_terms.values()))
        assert record.val_miou == pytest.approx(
            sum(iou for iou in record.class_iou if iou is not None)
            / sum(iou is not None for iou in record.class_iou)
        )
        assert (record.wall_s, record.images_per_s) == (
            4.0,
            2 * 4 / 2.0,
        )  # two readings; two steps of four images in 2 s
    assert records[-1].best_miou == max(record.val_miou for record in records)
    assert records[records[-1].best_epoch - 1].val_miou == records[-1].best_miou
    assert outcome.last == records[-1]
    assert outcome.student_params == sum(
        parameter.numel() for parameter in run.student.parameters()
    )
    assert not outcome.stopped_early


def test_training_makes_the_loss_smaller(toys: Path, tmp_path: Path) -> None:
    _, records = train(experiment(toys, train__epochs=6), tmp_path)
    first, last = records[0].loss_terms, records[-1].loss_terms
    assert all(last[name] < first[name] for name in first)


def test_the_same_run_gives_the_same_weights_and_another_seed_others(
    toys: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(experiment(toys, train__seed=seed, train__epochs=1), tmp_path / name)
        torch.rand(3)  # draws in between change nothing
    assert differing_paths(final_state(tmp_path / "a"), final_state(tmp_path / "b")) == []
    assert differing_paths(final_state(tmp_path / "a"), final_state(tmp_path / "c")) != []


def test_a_teacher_serves_run_after_run_and_none_of_them_moves_it(
    toys: Path, tmp_path: Path
) -> None:
    first = make_run(experiment(toys), tmp_path / "a")
    assert first.teacher is not None
    before = {name: tensor.clone() for name, tensor in first.teacher.state_dict().items()}
    first.run(lambda _: False)
    second = make_run(
        experiment(toys, method={"name": "attnfd", "layers": ["aspp"]}),
        tmp_path / "b",
        teacher=first.teacher,
    )
    second.run(lambda _: False)
    assert differing_paths(first.teacher.state_dict(), before) == []
    fresh, _ = train(
        experiment(toys, method={"name": "attnfd", "layers": ["aspp"]}), tmp_path / "c"
    )
    assert fresh.best_weights.read_bytes() == second.best_weights.read_bytes()


# Effects of settings


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_starts_from_the_loss_of_single_and_learns(
    precision: str, toys: Path, tmp_path: Path
) -> None:
    first_step: dict[str, Any] = {"train__epochs": 1, "train__steps_per_epoch": 1}
    full, _ = train(experiment(toys, **first_step), tmp_path / "full")
    half, _ = train(experiment(toys, train__precision=precision, **first_step), tmp_path / "half")
    # 20 layers, each rounded to 8 bits (bf16) or 11 (fp16)
    assert half.last.loss_terms == pytest.approx(full.last.loss_terms, rel=2e-2)
    longer, records = train(
        experiment(toys, train__precision=precision, train__epochs=6), tmp_path / "longer"
    )
    assert longer.last.train_loss < records[0].train_loss
    weights = load_file(longer.best_weights)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert {tensor.dtype for tensor in weights.values()} == {
        torch.float32,
        torch.int64,
    }  # as fp32 would write them


def test_channels_last_is_another_layout_of_the_same_step(toys: Path, tmp_path: Path) -> None:
    weights = []
    for channels_last in (False, True):
        run = make_run(experiment(toys, train__channels_last=channels_last), tmp_path)
        weight = run.student.get_parameter("backbone.layer2.0.conv1.weight")
        assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
        for module in run.student.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # its mask is drawn in memory order
        # in double precision: in single, a ReLU whose input is 0 but for rounding may open in one
        # layout only
        run_in_double(run, uneven_batch())
        weights.append(run.task.state_dict())
    for name, tensor in weights[0].items():
        # the cross-entropy is in single precision, and the first step is 0.07 long
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-6, atol=1e-7, msg=name)


def test_the_number_of_steps_is_as_set_or_the_whole_batches_of_the_split(
    toys: Path, tmp_path: Path
) -> None:
    taken: list[int] = []

    def count(**changes: Any) -> int:
        taken.append(0)
        run = make_run(plain(toys, train__epochs=1, **changes), tmp_path / str(len(taken)))

        def stepped(*_: object) -> None:
            taken[-1] += 1

        run.optimizer.register_step_post_hook(stepped)
        run.run(lambda _: False)
        return taken[-1]

    assert count() == TRAIN_IMAGES // 4 == 2
    assert count(train__steps_per_epoch=3) == 3
    assert count(train__steps_per_epoch=1) == 1


def test_on_step_is_called_before_each_step_and_at_the_end_of_an_epoch(
    toys: Path, tmp_path: Path
) -> None:
    heard: list[int | None] = []
    make_run(plain(toys), tmp_path, on_step=heard.append).run(Callback())
    # two steps an epoch; that no third follows is known only when it was asked for
    assert heard == [1, 2, 3, None, 3, 4, 5, None]


def test_a_split_smaller_than_a_batch_starts_over_within_it(toys: Path, tmp_path: Path) -> None:
    outcome, _ = train(plain(toys, train__epochs=1, train__batch_size=16), tmp_path)
    assert math.isfinite(outcome.last.train_loss)


# Errors


@pytest.mark.parametrize(
    ("steps", "found_at"), [(3, 3), (60, 50)], ids=["at the end of an epoch", "in the middle"]
)
def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_term(
    steps: int, found_at: int, toys: Path, tmp_path: Path
) -> None:
    run = make_run(plain(toys, train__steps_per_epoch=steps, train__batch_size=2), tmp_path)
    run.student.get_parameter("decoder.last_conv.8.bias").data.fill_(float("nan"))
    with pytest.raises(Diverged) as caught:
        run.run(lambda _: False)
    assert str(caught.value) == (
        f"the loss is not finite after step {found_at} of {2 * steps} (cross_entropy); lower "
        "optim.lr"
    )
    assert not (tmp_path / "checkpoints").exists()


def test_only_the_terms_that_are_not_finite_are_named(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = AttnFD.forward

    def exploding(self: AttnFD, *arguments: Any) -> dict[str, Tensor]:
        terms = original(self, *arguments)
        return terms | {"attnfd/decoder": terms["attnfd/decoder"] * float("inf")}

    monkeypatch.setattr(AttnFD, "forward", exploding)
    with pytest.raises(Diverged, match=r"after step 1 of 1 \(attnfd/decoder\); lower optim\.lr$"):
        train(experiment(toys, train__epochs=1, train__steps_per_epoch=1), tmp_path)


def test_a_learning_rate_far_too_high_is_found_out(toys: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"lower optim\.lr$"):
        train(plain(toys, optim__lr=1e30, train__epochs=3), tmp_path)


def test_a_gate_from_a_teacher_without_any_is_refused_before_the_first_step(
    toys: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "teacher.pth"
    torch.save({"backbone.conv1.weight": torch.zeros(1)}, weights)
    method = {"name": "attnfd", "layers": ["aspp"], "teacher_gate": "from_checkpoint"}
    with pytest.raises(CheckpointError) as caught:
        make_run(experiment(toys, teacher__checkpoint=str(weights), method=method), tmp_path)
    assert str(caught.value) == (
        f"{weights}: holds no attention gate for layer 'aspp'; use teacher_gate: random_frozen or "
        "parameter_free"
    )


def test_a_disk_that_is_full_is_our_error(toys: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        train(plain(toys), tmp_path)


# Users' own methods


class OwnSettings(AttnFD.Settings):
    name: str = "own"  # type: ignore[assignment]


class SelfTaught(Method):
    """A user's method that needs no teacher but taps the student."""

    Settings = OwnSettings
    needs_teacher = False

    def __init__(self, settings: OwnSettings, networks: Any) -> None:
        super().__init__()
        self.weight = settings.loss_weight
        self.scale = nn.Parameter(torch.ones(networks.student_channels["aspp"]))

    @classmethod
    def taps(cls, settings: Any) -> tuple[str, ...]:
        return ("aspp",)

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        assert not teacher
        return {
            "own": self.weight * (student["aspp"].mean(dim=(0, 2, 3)) * self.scale).square().sum()
        }


def test_a_method_without_a_teacher_may_listen_to_the_student(toys: Path, tmp_path: Path) -> None:
    outcome, _ = train(plain(toys, method={"name": f"{__name__}:SelfTaught"}), tmp_path)
    assert list(outcome.last.loss_terms) == ["cross_entropy", "own"]
    assert "method.scale" in final_state(tmp_path)["task"]
