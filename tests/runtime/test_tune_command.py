"""`attnfd-ray tune` on real Ray: a whole search, one killed and continued, and trials that fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, write
from processes import kill_driver, wait_until

from attnfd_ray.store.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def trials(store: str) -> dict[str, dict[str, Any]]:
    if not (Path(store) / "attnfd_store.json").exists():
        return {}
    return {row["trial_id"]: row for row in Store.open(store, create=False).trials().to_pylist()}


def finished(store: str) -> list[str]:
    return [
        name
        for name, row in trials(store).items()
        if row["state"] != "RUNNING" and row["role"] != "teacher"
    ]


def test_a_killed_search_resumes_without_repeating_finished_trials(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    tree["search"] = {
        "method.layers": {"subset": ["stage4", "aspp", "decoder"]},
        "method.loss_weight": {"float": [0.1, 10.0], "log": True},
    }
    tree["tune"] = {"trials": 5, "grace_epochs": 2, "keep_weights": 1, "baseline_trials": 2}
    file = write(tree, tmp_path)
    process = attnfd_ray.start("tune", file)
    wait_until("two finished trials", lambda: len(finished(tree["store"])) >= 2)
    before = trials(tree["store"])
    kill_driver(process.pid)

    again = attnfd_ray("tune", file, "--json")
    assert (again.returncode, again.stderr) == (0, "")
    after = trials(tree["store"])
    done = [name for name, row in before.items() if row["state"] != "RUNNING"]
    assert all(
        after[name]["attempt"] == before[name]["attempt"]
        for name in done
        if before[name]["role"] != "teacher"
    )
    students = [row for row in after.values() if row["role"] != "teacher"]
    roles = sorted(row["role"] for row in students)
    assert roles == ["as_written", "baseline", "baseline_trial", "baseline_trial"] + ["trial"] * 4
    assert {row["state"] for row in students} <= {"COMPLETE", "PRUNED"}
    rows = Store.open(tree["store"], create=False).epochs(columns=["trial_id", "epoch"]).to_pylist()
    pairs = [(row["trial_id"], row["epoch"]) for row in rows]
    assert len(pairs) == len(set(pairs)) == sum(row["epochs_done"] for row in after.values())
    events = [json.loads(line) for line in again.stdout.splitlines()]
    reported = {
        event["trial_id"]
        for event in events
        if event["event"] == "finished" and event["role"] != "teacher"
    }
    assert reported.isdisjoint(done)
    drawn = [row for row in students if row["role"] == "trial" and row["state"] == "COMPLETE"]
    alone = [
        row for row in students if row["role"].startswith("baseline") and row["state"] == "COMPLETE"
    ]
    leaders = [
        min(rows, key=lambda row: (-row["best_val_miou"], row["trial_id"]))
        for rows in (drawn, alone)
    ]
    keeping = {
        row["trial_id"]
        for row in [*leaders, *students]
        if row in leaders or row["role"] == "as_written"
    }
    runs = Path(tree["store"]) / "runs"
    files = {
        path.relative_to(runs).as_posix()
        for path in runs.glob("tiny.search1-*/**/*")
        if path.is_file()
    }
    assert files == {
        f"{name}/{which}.safetensors" for name in keeping for which in ("best", "last")
    }

    complete = attnfd_ray("tune", file)
    assert complete.returncode == 0
    assert complete.stdout.startswith("tiny.search1 is complete: nothing left to try\n")
    report = attnfd_ray("report", tree["store"])
    assert report.returncode == 0
    assert "Gain over the baseline" in report.stdout
    assert "the baseline tuned over 3" in " ".join(report.stdout.split())


def test_a_search_over_methods_has_a_teacher_although_the_files_own_method_needs_none(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    tree["method"] = {"name": "none"}
    tree["train"]["epochs"], tree["optim"]["lr"] = 1, 1e-4
    tree["search"] = {
        "method": {"choice": [{"name": "none"}, {"name": "kd", "loss_weight": 1000.0}]}
    }
    tree["tune"] = {"trials": 2, "sampler": "grid"}  # the file as written is the grid's first point
    done = attnfd_ray("tune", write(tree, tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    rows = trials(tree["store"]).values()
    assert sorted((row["role"], row["method"], row["state"]) for row in rows) == [
        ("as_written", "none", "COMPLETE"),
        ("teacher", "none", "COMPLETE"),
        ("trial", "kd", "COMPLETE"),
    ]
    # such a large weight causes a warning, once, by the gradients of the epoch
    (warning,) = [line for line in done.stdout.splitlines() if "the gradient of kd is" in line]
    assert warning.endswith(
        "(above 3 it can dominate the training); try a lower method.loss_weight"
    )
    (strong,) = [row["trial_id"] for row in rows if row["method"] == "kd"]
    assert warning.startswith(f"{strong} epoch 1: ")
    shown = " ".join(attnfd_ray("report", tree["store"]).stdout.split())
    assert "Gradients of the loss terms with respect to the student (L2 norms)" in shown
