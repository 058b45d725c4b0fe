"""`attnfd-ray train` on real Ray: resume after a kill, sockets, workers, errors."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import CommandLine, write
from patient_method import METHOD, write_patient
from PIL import Image
from processes import descendants, kill_driver, listening, wait_until
from safetensors.torch import load_file

from attnfd_ray.config.loader import load_experiment
from attnfd_ray.config.overrides import teacher_experiment, with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.runtime.jobs.worker import Worker
from attnfd_ray.store.store import Store
from attnfd_ray.train import checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def epochs(store: str | Path, trial_id: str) -> list[dict[str, Any]]:
    if not (Path(store) / "attnfd_store.json").exists():
        return []
    rows: list[dict[str, Any]] = Store.open(store, create=False).epochs(trial_id).to_pylist()
    return rows


def weights(store: str | Path, trial_id: str) -> dict[str, bytes]:
    (directory,) = (Path(store) / "runs" / trial_id / "checkpoints").iterdir()
    best = Path(store) / "runs" / trial_id / "best.safetensors"
    return {"state": (directory / "state.pt").read_bytes(), "best": best.read_bytes()}


def without_ray(settings: ExperimentSettings) -> None:
    """Train as `attnfd-ray train` does, in this process and without interruption."""
    Store.open(settings.store, create=True)
    worker = Worker(torch.device("cpu"), lambda job, event: None)
    training = teacher_experiment(settings).model_dump_json()
    teacher = Job(kind="train", trial_id="teacher", role="teacher", settings_json=training)
    worker.do(teacher)
    file = str(teacher.directory / "best.safetensors")
    student = settings.model_dump_json()
    worker.do(
        Job(
            kind="train",
            trial_id="tiny.train1",
            role="run",
            settings_json=student,
            teacher_file=file,
        )
    )


def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_weights(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    tree["train"]["epochs"] = 6
    file = write(tree, tmp_path)
    undisturbed = str(tmp_path / "undisturbed")
    without_ray(with_values(load_experiment(file), {"store": undisturbed}))

    process = attnfd_ray.start("train", file)
    wait_until("the second epoch", lambda: len(epochs(tree["store"], "tiny.train1")) >= 2)
    sockets = listening({process.pid, *descendants(process.pid)})
    time.sleep(random.Random(0).uniform(0, 0.3))
    kill_driver(process.pid)
    assert len(sockets) >= 5
    assert all(
        address.startswith(("127.0.0.1:", "[::1]:", "[::ffff:127.0.0.1]:")) for address in sockets
    ), sockets

    again = attnfd_ray("train", file)
    assert (again.returncode, again.stderr) == (0, "")
    assert weights(tree["store"], "tiny.train1") == weights(undisturbed, "tiny.train1")
    rows = epochs(tree["store"], "tiny.train1")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["val_miou"] for row in rows] == [
        row["val_miou"] for row in epochs(undisturbed, "tiny.train1")
    ]


def test_two_workers_share_a_run_and_one_of_them_may_die(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    tree |= {"scaling": {"workers": 2}, "method": {"name": "none"}, "teacher": None}
    tree["train"]["epochs"] = 12
    file = write(tree, tmp_path)
    process = attnfd_ray.start("train", file, "--json")
    wait_until("the second epoch", lambda: len(epochs(tree["store"], "tiny.train1")) >= 2)
    workers = [
        pid for pid, command in descendants(process.pid).items() if "RayTrainWorker" in command
    ]
    assert len(workers) == 2
    os.kill(workers[-1], signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["state"] == "COMPLETE"
    rows = epochs(tree["store"], "tiny.train1")
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert {row["attempt"] for row in rows} == {1, 2}
    best = load_file(tmp_path / "results" / "runs" / "tiny.train1" / "best.safetensors")
    assert not [name for name in best if "gate" in name or "connector" in name]


def test_more_workers_than_the_capacity_are_refused_with_the_arithmetic(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    start = time.monotonic()
    cores = os.cpu_count() or 1
    file = write(
        tree | {"scaling": {"workers": 4 * cores}, "train": {"batch_size": 8 * cores, "epochs": 1}},
        tmp_path,
    )
    done = attnfd_ray("train", file)
    assert time.monotonic() - start < 30
    assert done.returncode == 2
    assert done.stderr == (
        f"scaling: {4 * cores} workers x (1 CPU) do not fit on 1 node(s) with {cores} CPU; the "
        f"capacity is {cores} such worker(s): lower scaling.workers, scaling.cpus_per_worker or "
        "tune.concurrent\n"
    )


def test_a_broken_image_deep_in_the_set_ends_a_search_after_three_trials(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    root = tmp_path / "broken"
    shutil.copytree(tree["data"]["root"], root)
    mask = sorted((root / "VOCdevkit" / "VOC2012" / "SegmentationClass").glob("*.png"))[2]
    Image.fromarray(np.full((32, 32), 77, np.uint8)).save(mask)
    tree["data"]["root"] = str(root)
    tree["search"] = {"optim.lr": {"float": [0.01, 0.1]}}
    done = attnfd_ray("tune", write(tree | {"teacher": None, "method": {"name": "none"}}, tmp_path))
    assert done.returncode == 2
    problem, stopped = done.stderr.splitlines()
    assert problem == (
        f"{mask}: mask values 77 are no class; needed are 0..11 or 255: check that data.name is "
        "what data.root holds"
    )
    assert stopped.startswith(
        "stopped: 3 of this command's trials failed (3 DATA), which is tune.max_failures, the first"
    )
    rows = Store.open(tree["store"], create=False).trials(columns=["state"]).to_pylist()
    assert [row["state"] for row in rows].count("FAILED") == 3


LONG_S = 7.0  # longer than any other wait at the end of a command


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_a_search_after_the_running_epochs_and_a_second_one_at_once(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path, times: int
) -> None:
    go = write_patient(tmp_path)
    tree["method"] = METHOD
    tree["train"]["epochs"] = 500
    file = write(tree, tmp_path)
    process = attnfd_ray.start("tune", file, "--fresh", PYTHONPATH=str(tmp_path))
    quick = "tiny.search1-0000"  # the baseline, which does not wait for `go`
    slow = "tiny.search1-0001"
    wait_until(
        "an epoch of both", lambda: epochs(tree["store"], quick) and epochs(tree["store"], slow)
    )
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
        time.sleep(0.2)
    if times == 1:
        time.sleep(LONG_S)
        go.touch()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    stopping, *rest = err.strip().splitlines()
    assert stopping == "stopping after the running epochs; Ctrl-C again ends at once"
    interrupted = {1: "interrupted after the running epochs", 2: "interrupted"}[times]
    resume_hint = f"resume from the last finished epoch: attnfd-ray tune {file}"
    assert [line for line in rest if line] == [f"{interrupted}; {resume_hint}"]
    store = Store.open(tree["store"], create=False)
    for trial_id in (quick, slow):
        row = store.trial(trial_id)
        assert row is not None
        assert row["state"] == "RUNNING"
        if times == 1:
            assert row["failure_kind"] == "INTERRUPTED"
            saved = checkpoint.latest(Path(tree["store"]) / "runs" / trial_id / "checkpoints")
            assert saved is not None
            # no epoch was lost
            assert saved.epoch == max(epoch["epoch"] for epoch in epochs(tree["store"], trial_id))
    assert (len(epochs(tree["store"], slow)) > 1) == (times == 1)


def test_a_teacher_below_min_miou_ends_a_search_before_any_student(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    tree["experiment"], tree["teacher"]["min_miou"] = "other", 0.99
    done = attnfd_ray("tune", write(tree, tmp_path))
    assert done.returncode == 2
    assert "below teacher.min_miou 0.99; train it longer, check" in done.stderr
    assert done.stderr.count("\n") == 1
    roles = Store.open(tree["store"], create=False).trials(columns=["role"])["role"].to_pylist()
    assert roles == ["teacher"], "no student has started"
