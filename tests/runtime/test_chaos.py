"""A search ends the same if driver, worker, broker and node are killed at random moments."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import TIMEOUT_S, CommandLine, write
from processes import descendants, wait_until
from ray_cluster import RayCluster

from attnfd_ray.data.generate.toyscenes import write_toyscenes
from attnfd_ray.store.store import Store

# of four kills each; `make chaos` has more
NUM_SEARCHES = int(os.environ.get("ATTNFD_CHAOS_SEARCHES", "1"))
VICTIMS = ("driver", "worker", "broker", "node")
# A kill comes so many epochs after the last one, and so much later; 0 epochs: during the start.
_MAX_EPOCHS = 6
_MAX_S = 1.0

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture(scope="session")
def rich_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return images that a short training learns from: equal scores would hide a wrong order."""
    root = tmp_path_factory.mktemp("data") / "rich"
    write_toyscenes(root, size=48, train=48, val=8, seed=0, noise=0.0)
    return root


def experiment(scenes: Path, store: Path) -> dict[str, Any]:
    network = {"backbone": "resnet18", "width": 0.25}
    return {
        "experiment": "chaos",
        "data": {"name": "toyscenes", "root": str(scenes), "crop": [48, 48]},
        "teacher": {**network, "train": {"epochs": 2, "lr": 0.05}},
        "student": network,
        "method": {"name": "attnfd", "layers": ["stage4"], "reduction_ratio": 4},
        "train": {"epochs": 6, "batch_size": 8},
        "search": {
            "method.layers": {"subset": ["stage4", "aspp", "decoder"]},
            "method.loss_weight": {"float": [0.1, 10.0], "log": True},
            "optim.lr": {"float": [0.001, 0.1], "log": True},
        },
        # one trial at a time makes the next draw reproducible
        "tune": {
            "trials": 8,
            "concurrent": 1,
            "early_stopping": "asha",
            "grace_epochs": 2,
            "reduction_factor": 2,
            "keep_weights": None,
        },
        "store": str(store),
    }


def outcome(store: Path) -> dict[str, Any]:
    """Return the results of a search, without times, hosts and attempts."""
    opened = Store.open(store, create=False)
    columns = ["trial_id", "epoch", "epochs_total", "train_loss", "val_miou", "class_iou", "lr"]
    epochs = opened.epochs(columns=columns).to_pylist()
    pairs = [(row["trial_id"], row["epoch"]) for row in epochs]
    assert len(pairs) == len(set(pairs)), "an epoch is in the store twice"
    columns = [
        "trial_id",
        "role",
        "state",
        "stop_reason",
        "seed",
        "searched_json",
        "config_hash",
        "best_val_miou",
    ]
    rows = opened.trials(columns=[*columns, "best_epoch", "epochs_done"]).to_pylist()
    weights = {
        path.relative_to(store / "runs").as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (store / "runs").glob("*/*.safetensors")
    }
    return {
        "trials": {row["trial_id"]: row for row in rows},
        "epochs": {(row["trial_id"], row["epoch"]): row for row in epochs},
        "weights": weights,
    }


@pytest.fixture(scope="session")
def undisturbed(rich_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the results of a search in which no process is killed."""
    directory = tmp_path_factory.mktemp("undisturbed")
    line = CommandLine(directory)
    try:
        done = line("tune", write(experiment(rich_scenes, directory / "results"), directory))
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        line.close()
    found = outcome(directory / "results")
    states = [row["state"] for row in found["trials"].values()]
    assert states.count("PRUNED") >= 2, (
        "no trial was stopped early, so a wrong rung would not be noticed"
    )
    assert len({row["best_val_miou"] for row in found["trials"].values()}) > 4
    return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RayCluster]:
    cluster = RayCluster(tmp_path / "cluster", nodes=2)
    yield cluster
    cluster.close()


class Chaos:
    """Starts the command, kills processes, and starts the command again if that has ended it."""

    def __init__(
        self, cluster: RayCluster, store: Path, command: Callable[[], subprocess.Popen[str]]
    ) -> None:
        self.cluster, self.store, self.command = cluster, store, command
        self.process = command()

    def kill(self, victim: str, *, after_epochs: int, after_s: float) -> None:
        """Kill `victim` so many epochs and then seconds from now."""
        begin = self._num_epochs()
        wait_until(
            f"{after_epochs} more epochs",
            lambda: self._num_epochs() >= begin + after_epochs or self.process.poll() is not None,
        )
        time.sleep(after_s)
        wait_until(f"a {victim} to kill", lambda: self._strike(victim))
        if victim == "node":
            self.cluster.add_node()
        elif victim in ("driver", "broker"):
            _, err = self.process.communicate(timeout=TIMEOUT_S)
            if victim == "broker":
                assert self.process.returncode == 1, err
                assert "run the same command again to resume" in err
                assert err.count("\n") == 1, err
            self.process = self.command()

    def _strike(self, victim: str) -> bool:
        if self.process.poll() is not None:
            pytest.fail(
                f"the search ended before the {victim} was killed: {self.process.communicate()}"
            )
        target = self._target(victim)
        if isinstance(target, int):
            os.kill(target, signal.SIGKILL)
        elif target is not None:
            self.cluster.kill_node(target)
        return target is not None

    def _target(self, victim: str) -> Any:
        """Return the pid or node to kill, None while there is none."""
        if victim == "driver":
            return self.process.pid
        if victim == "broker":
            return next(
                (pid for pid, name in self._below(self.cluster.head).items() if "::Broker" in name),
                None,
            )
        for node in self.cluster.nodes:
            for pid, name in self._below(node).items():
                if "::RayTrainWorker" in name:
                    return node if victim == "node" else pid
        return None

    def _num_epochs(self) -> int:
        """Return how many epochs are in the store, of all attempts."""
        if not (self.store / "attnfd_store.json").exists():
            return 0
        return Store.open(self.store, create=False).epochs(columns=["epoch"]).num_rows

    def _below(self, node: subprocess.Popen[bytes]) -> dict[int, str]:
        return descendants(node.pid)


@pytest.mark.parametrize("number", range(NUM_SEARCHES))
def test_a_search_that_is_killed_again_and_again_has_the_same_results(
    number: int,
    undisturbed: dict[str, Any],
    rich_scenes: Path,
    cluster: RayCluster,
    attnfd_ray: CommandLine,
    tmp_path: Path,
) -> None:
    rng = random.Random(number)
    file = write(experiment(rich_scenes, tmp_path / "results"), tmp_path)
    chaos = Chaos(
        cluster, tmp_path / "results", lambda: attnfd_ray.start("tune", file, **cluster.environment)
    )
    for victim in rng.sample(VICTIMS, len(VICTIMS)):
        chaos.kill(victim, after_epochs=rng.randint(0, _MAX_EPOCHS), after_s=rng.uniform(0, _MAX_S))
    _, err = chaos.process.communicate(timeout=TIMEOUT_S)
    assert (chaos.process.returncode, err) == (0, "")
    attempts = [
        row["attempt"]
        for row in Store.open(tmp_path / "results", create=False).trials().to_pylist()
    ]
    assert max(attempts) > 1, "no process was killed while it trained"
    assert outcome(tmp_path / "results") == undisturbed
