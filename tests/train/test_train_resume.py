"""Promise 4: a run killed at any moment and started again ends as one never killed.

Bit for bit.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from train_runs import (
    PATIENCE_S,
    differing_paths,
    experiment,
    final_state,
    make_run,
    on_workers,
    plain,
    scores_of,
    start,
    train,
)

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import CheckpointError
from attnfd_ray.models import build_model
from attnfd_ray.models.files import load_weights, read_header
from attnfd_ray.train import checkpoint
from attnfd_ray.train.records import EpochRecord
from attnfd_ray.train.trainer import Trainer

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "released form": {"method": {"name": "attnfd_release"}},
    "in parts": {"train__accumulate": 2},
    "bf16": {"train__precision": "bf16"},
    "fp16": {"train__precision": "fp16"},
    "contiguous": {"train__channels_last": False},
    "nesterov": {"optim__nesterov": True},
    "mobilenet": {"student__backbone": "mobilenet_v2"},
}


class Stopped(Exception):
    """Anything that ends a run from outside."""


def train_until(settings: ExperimentSettings, directory: Path, epoch: int) -> None:
    """Train, and stop by an exception while epoch `epoch` is reported."""

    def report(record: EpochRecord) -> bool:
        if record.epoch == epoch:
            raise Stopped
        return False

    with pytest.raises(Stopped):
        make_run(settings, directory).run(report)


def assert_ends_alike(directory: Path, whole: Path) -> None:
    assert differing_paths(final_state(directory), final_state(whole)) == []
    assert (directory / "best.safetensors").read_bytes() == (
        whole / "best.safetensors"
    ).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    changes: dict[str, Any], toys: Path, tmp_path: Path
) -> None:
    settings = experiment(toys, train__epochs=2, **changes)
    outcome, records = train(settings, tmp_path / "whole")
    train_until(settings, tmp_path / "stopped", 2)
    again, later = train(settings, tmp_path / "stopped")
    assert_ends_alike(tmp_path / "stopped", tmp_path / "whole")
    # the epoch in which it was stopped was not saved, so it is repeated, with the same scores
    assert [scores_of(record) for record in later] == [scores_of(record) for record in records[1:]]
    assert scores_of(again.last) == scores_of(outcome.last)


def test_best_weights_that_a_kill_kept_from_being_written_are_written_at_the_next_start(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = plain(toys, train__epochs=1)
    train(settings, tmp_path / "whole")

    def killed(*_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "write", killed)
        with pytest.raises(Stopped):
            make_run(settings, tmp_path / "stopped").run(lambda _: False)
    assert not (tmp_path / "stopped/best.safetensors").exists()
    train(settings, tmp_path / "stopped")
    assert_ends_alike(tmp_path / "stopped", tmp_path / "whole")


def test_the_weights_of_the_last_epoch_are_kept_beside_the_best(toys: Path, tmp_path: Path) -> None:
    run = make_run(plain(toys, train__epochs=2), tmp_path / "run")
    run.run(lambda _: False)
    kept = read_header(run.last_weights)
    assert kept is not None
    assert kept.extra == {"epoch": "2"}
    network = build_model(run.settings.student, num_classes=12)
    load_weights(network, run.last_weights, num_classes=12)
    assert differing_paths(network.state_dict(), run.student.state_dict()) == []


@pytest.mark.slow
def test_a_run_stopped_in_every_epoch_ends_as_one_never_stopped(toys: Path, tmp_path: Path) -> None:
    settings = experiment(toys, train__epochs=3)
    train(settings, tmp_path / "whole")
    for epoch in (1, 2, 3):
        train_until(settings, tmp_path / "stopped", epoch)
        make_run(settings, tmp_path / "stopped").run(
            lambda _: True
        )  # and once more, now to the end of that epoch
    assert_ends_alike(tmp_path / "stopped", tmp_path / "whole")


def test_a_run_that_is_over_answers_at_once(toys: Path, tmp_path: Path) -> None:
    outcome, _ = train(plain(toys), tmp_path)
    before = final_state(tmp_path)
    again, records = train(plain(toys), tmp_path)
    assert records == []
    assert again == outcome
    assert differing_paths(final_state(tmp_path), before) == []


def test_a_stopped_run_keeps_its_last_epoch_and_can_be_resumed(toys: Path, tmp_path: Path) -> None:
    settings = plain(toys, train__epochs=3)
    outcome = make_run(settings, tmp_path / "stopped").run(lambda record: record.epoch == 2)
    assert (outcome.stopped_early, outcome.last.epoch) == (True, 2)
    again, records = train(settings, tmp_path / "stopped")
    train(settings, tmp_path / "whole")
    assert not again.stopped_early
    assert [record.epoch for record in records] == [3]
    assert_ends_alike(tmp_path / "stopped", tmp_path / "whole")


def test_a_damaged_checkpoint_costs_time_and_nothing_else(toys: Path, tmp_path: Path) -> None:
    settings = experiment(toys)
    train(settings, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
    state = tmp_path / "damaged" / "checkpoints" / "epoch-0002" / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    _, records = train(settings, tmp_path / "damaged")
    assert [record.epoch for record in records] == [1, 2]
    assert_ends_alike(tmp_path / "damaged", tmp_path / "whole")


@pytest.mark.parametrize(
    "changes",
    [
        {"student__width": 0.25},
        {"student__backbone": "mobilenet_v2"},
        {"method": {"name": "attnfd", "layers": ["aspp"]}},
        {"method": {"name": "attnfd", "layers": ["stage4", "decoder"], "student_gate": "identity"}},
    ],
    ids=["width", "backbone", "layers", "gate"],
)
def test_a_checkpoint_of_another_experiment_is_refused(
    changes: dict[str, Any], toys: Path, tmp_path: Path
) -> None:
    train(experiment(toys, train__epochs=1), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        make_run(experiment(toys, train__epochs=1, **changes), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/checkpoints/epoch-0001: is of another network, method or version; "
        f"start over with --fresh, or delete {tmp_path}"
    )


def test_a_checkpoint_whose_record_has_other_fields_is_refused(toys: Path, tmp_path: Path) -> None:
    train(plain(toys, train__epochs=1), tmp_path)
    found = checkpoint.latest(tmp_path / "checkpoints")
    assert found is not None
    checkpoint.save(
        tmp_path / "checkpoints", epoch=1, state=found.load(), record={"epoch": 1, "bleu": 0.3}
    )
    with pytest.raises(CheckpointError, match="is of another network, method or version"):
        make_run(plain(toys, train__epochs=1), tmp_path)


def train_and_die_at(step: int, settings: ExperimentSettings, directory: Path) -> None:
    """Train, and be killed just before the `step`-th access to the run's directory."""
    touched = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal touched
        if any(
            isinstance(argument, str | os.PathLike) and str(directory) in str(argument)
            for argument in arguments
        ):
            touched += 1
            if touched == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    train(settings, directory)


@pytest.mark.slow
def test_a_run_killed_at_every_touch_of_the_disk_ends_as_one_never_killed(
    toys: Path, tmp_path: Path
) -> None:
    settings = plain(toys, train__steps_per_epoch=1, data__val_limit=1)
    train(settings, tmp_path / "whole")
    deaths = 0
    # each attempt lives one step longer than the one before, so that no step of an epoch is left
    # out
    for step in range(1, 100):
        process = start(train_and_die_at, step, settings, tmp_path / "killed")
        process.join(PATIENCE_S)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        deaths += 1
    assert (
        deaths > 10
    )  # best weights, state, manifest, renaming, and the deletion of the checkpoint before
    assert_ends_alike(tmp_path / "killed", tmp_path / "whole")


def train_quietly(settings: ExperimentSettings, directory: Path) -> None:
    train(settings, directory)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_one_never_killed(
    toys: Path, tmp_path: Path
) -> None:
    settings = experiment(toys, train__epochs=6)
    started = time.perf_counter()
    train(settings, tmp_path / "whole")
    whole_s = time.perf_counter() - started
    rng = random.Random(0)
    for _ in range(4):
        process = start(train_quietly, settings, tmp_path / "killed")
        time.sleep(rng.uniform(0, whole_s / 2))
        process.kill()
        process.join()
    train(settings, tmp_path / "killed")
    assert_ends_alike(tmp_path / "killed", tmp_path / "whole")


def train_on_a_worker(
    settings: ExperimentSettings, directory: Path, stop_after: int
) -> list[dict[str, Any]]:
    records: list[EpochRecord] = []

    def report(record: EpochRecord) -> bool:
        records.append(record)
        return record.epoch == stop_after

    make_run(settings, directory).run(report)
    return [scores_of(record) for record in records]


@pytest.mark.slow
def test_a_run_on_several_workers_goes_on_as_if_never_stopped(toys: Path, tmp_path: Path) -> None:
    workers = 3  # sums of two are the same in any order
    settings = experiment(
        toys, train__batch_size=6, train__steps_per_epoch=2, scaling__workers=workers
    )
    whole = on_workers(workers, tmp_path / "a", train_on_a_worker, settings, tmp_path / "whole", 2)
    first = on_workers(
        workers, tmp_path / "b", train_on_a_worker, settings, tmp_path / "stopped", 1
    )
    second = on_workers(
        workers, tmp_path / "c", train_on_a_worker, settings, tmp_path / "stopped", 2
    )
    assert all(records == whole[0] for records in whole)  # all workers return the same
    assert [one + two for one, two in zip(first, second, strict=True)] == whole
    assert_ends_alike(tmp_path / "stopped", tmp_path / "whole")
