"""A full disk and a read-only one: a real file system of a few MiB, with real Ray."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, write
from patient_method import METHOD, write_patient
from processes import wait_until

from attnfd_ray.store.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


class Disk:
    """A small file system in memory."""

    def __init__(self, mount_point: Path) -> None:
        self.mount_point = mount_point
        mount_point.mkdir()
        self._mount("-t", "tmpfs", "-o", "size=64m", "tmpfs")

    def fill(self) -> None:
        """Take every byte that is left."""
        with (self.mount_point / "filling").open("wb", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\0" * size)
        assert shutil.disk_usage(self.mount_point).free == 0

    def grow(self) -> None:
        self._mount("-o", "remount,size=128m")

    def refuse(self) -> None:
        """Make it read-only, although files are open; `allow` undoes it."""
        self._mount("--bind", str(self.mount_point))
        self._mount("-o", "remount,bind,ro")

    def allow(self) -> None:
        # lazily: processes may still have files open there
        subprocess.run(
            ["umount", "--lazy", self.mount_point], check=True, capture_output=True, timeout=30
        )

    def close(self) -> None:
        while os.path.ismount(self.mount_point):
            self.allow()

    def _mount(self, *how: str) -> None:
        subprocess.run(
            ["mount", *how, self.mount_point], check=True, capture_output=True, timeout=30
        )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        made = Disk(tmp_path / "disk")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount a file system: {error}")
    yield made
    made.close()


def rows_of(store: str) -> tuple[dict[str, str], list[tuple[str, int]]]:
    """Return the state of each student, and all pairs (trial, epoch) in the store."""
    opened = Store.open(store, create=False)
    students = [row for row in opened.trials().to_pylist() if row["role"] != "teacher"]
    epochs = opened.epochs(columns=["trial_id", "epoch"]).to_pylist()
    return (
        {row["trial_id"]: row["state"] for row in students},
        sorted(
            (row["trial_id"], row["epoch"])
            for row in epochs
            if not row["trial_id"].startswith("teacher")
        ),
    )


def test_a_full_disk_and_a_read_only_one_stop_the_search_and_lose_nothing(
    disk: Disk, attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    go, store = write_patient(tmp_path), str(disk.mount_point / "results")
    tree |= {"store": store, "search": {"optim.lr": {"choice": [0.02, 0.01, 0.005]}}}
    tree["method"] = METHOD
    tree["train"]["epochs"] = 2
    tree["tune"] = {"trials": 2, "sampler": "grid", "early_stopping": "none", "concurrent": 1}
    file = write(tree, tmp_path)

    def stopped(*arguments: str, last: str, by: Callable[[], None]) -> str:
        """Start the search, call `by` in the second epoch of trial `last`, and return the error."""
        process = attnfd_ray.start("tune", file, *arguments, PYTHONPATH=str(tmp_path))
        saved = Path(store) / "runs" / last / "best.safetensors"  # after epoch 1
        wait_until(f"{last} to be in its second epoch", saved.exists, timeout_s=240)
        by()
        go.touch()
        _, err = process.communicate(timeout=240)
        assert process.returncode == 2, err
        (line,) = err.splitlines()
        go.unlink()
        return line

    # the baseline's method is none, and does not wait for `go`
    line = stopped(last="tiny.search1-0001", by=disk.fill)
    assert line.startswith(store)
    assert "cannot be written" in line
    assert "No space left on device" in line
    states, before = rows_of(store)
    assert states == {"tiny.search1-0000": "COMPLETE", "tiny.search1-0001": "RUNNING"}
    disk.grow()
    go.touch()
    again = attnfd_ray("tune", file, PYTHONPATH=str(tmp_path))
    assert (again.returncode, again.stderr) == (0, "")
    states, after = rows_of(store)
    assert set(states.values()) == {"COMPLETE"}
    assert set(before) < set(after)
    assert after == sorted((trial, epoch) for trial in states for epoch in (1, 2))

    go.unlink()
    more = ("--set", "tune.trials=3")
    line = stopped(*more, last="tiny.search1-0003", by=disk.refuse)
    assert line.startswith(store)
    assert "cannot be written" in line
    assert "Read-only file system" in line
    refused = attnfd_ray("tune", file, *more, PYTHONPATH=str(tmp_path))
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "cannot be written: no permission, or the file system is read-only" in refused.stderr
    disk.allow()
    go.touch()
    again = attnfd_ray("tune", file, *more, PYTHONPATH=str(tmp_path))
    assert (again.returncode, again.stderr) == (0, "")
    states, epochs = rows_of(store)
    assert set(states.values()) == {"COMPLETE"}
    assert epochs == sorted((trial, epoch) for trial in states for epoch in (1, 2))
