"""Checks before a command starts: capacity, nodes, disks and versions, with the arithmetic."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, write

from attnfd_ray.config.schema import ExperimentSettings, ModelSettings
from attnfd_ray.errors import CapacityError
from attnfd_ray.models import build_model
from attnfd_ray.runtime.cluster import preflight, probe
from attnfd_ray.runtime.cluster.capacity import GroupShape
from attnfd_ray.runtime.cluster.estimate import Sizes, disk_bytes, wall_s
from attnfd_ray.runtime.cluster.preflight import (
    NO_WAIT,
    Capacity,
    WaitPolicy,
    disk_problems,
    wait_for_capacity,
)
from attnfd_ray.runtime.cluster.probe import NodeFacts, probe_node, version_mismatches
from attnfd_ray.runtime.network_checks import check_networks, searched_students

Settings = Callable[[], ExperimentSettings]


def node(cpus: float, name: str = "a") -> dict[str, Any]:
    return {"Alive": True, "NodeID": name, "Resources": {"CPU": cpus}}


class Cluster:
    """A cluster that grows with time, and its clock."""

    def __init__(self, *stages: tuple[float, list[dict[str, Any]]]) -> None:
        self.now_s = 0.0
        self._stages = stages

    def nodes(self) -> list[dict[str, Any]]:
        return [found for start_s, found in self._stages if start_s <= self.now_s][-1]

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def capacity_of(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> Callable[..., tuple[Capacity, list[str]]]:
    def find(
        cluster: Cluster, *, wait_policy: WaitPolicy, asked: int | str = "auto"
    ) -> tuple[Capacity, list[str]]:
        monkeypatch.setattr(preflight.ray, "nodes", cluster.nodes)
        lines: list[str] = []
        capacity = wait_for_capacity(
            settings(),
            asked=asked,
            trials=9,
            wait_policy=wait_policy,
            log=lines.append,
            clock=cluster,
        )
        return capacity, lines

    return find


def test_capacity_that_is_enough_is_taken_at_once(capacity_of: Callable[..., Any]) -> None:
    cluster = Cluster((0, [node(2), node(1, "b")]))
    capacity, lines = capacity_of(cluster, wait_policy=WaitPolicy(wait_s=100))
    assert (capacity.groups, lines) == (3, [])


def test_waiting_for_capacity_is_logged_once(capacity_of: Callable[..., Any]) -> None:
    cluster = Cluster((0, [node(0)]), (30, [node(0), node(4, "b")]))
    capacity, lines = capacity_of(cluster, wait_policy=WaitPolicy(wait_s=60))
    assert capacity.groups == 4
    assert cluster.now_s == 30
    assert [line.partition(":")[0] for line in lines] == ["waiting up to 60 s for capacity"]


def test_waiting_ends_with_the_arithmetic(capacity_of: Callable[..., Any]) -> None:
    cluster = Cluster((0, [node(2)]))
    with pytest.raises(
        CapacityError, match=r"3 trials at once .* with 2 CPU; .* \(waited 20 s for it\)$"
    ):
        capacity_of(cluster, wait_policy=WaitPolicy(wait_s=20), asked=3)
    assert cluster.now_s == 20


def test_expected_nodes_are_waited_for_even_if_the_others_have_the_capacity(
    capacity_of: Callable[..., Any],
) -> None:
    cluster = Cluster((0, [node(4)]), (10, [node(4), node(4, "b")]))
    assert capacity_of(cluster, wait_policy=WaitPolicy(wait_s=60, nodes=2))[0].groups == 8
    with pytest.raises(CapacityError, match=r"^cluster: 1 of 2 expected nodes are alive; start"):
        capacity_of(Cluster((0, [node(4)])), wait_policy=WaitPolicy(nodes=2))


def test_a_dead_node_has_no_capacity(capacity_of: Callable[..., Any]) -> None:
    with pytest.raises(CapacityError, match=r"^cluster: 0 of 1 expected nodes"):
        capacity_of(Cluster((0, [node(4) | {"Alive": False}])), wait_policy=NO_WAIT)


@pytest.fixture
def token(settings: Settings) -> str:
    """The token that the driver has written into the store."""
    directory = Path(settings().store) / "preflight" / "t0"
    directory.mkdir(parents=True)
    (directory / "driver").write_text("t0")
    return "t0"


def test_a_node_with_all_it_needs_has_no_problem_and_answers_in_the_store(
    settings: Settings, token: str
) -> None:
    facts = probe_node(settings(), token, "host/ab12")
    assert facts.problems == ()
    assert facts.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (Path(settings().store) / "preflight/t0/host-ab12").is_file()


def test_each_path_that_a_node_cannot_read_is_a_line_with_its_name(
    tree: dict[str, Any], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_DISK_TIMEOUT_S", 0.0)
    tree["data"]["root"] = str(tmp_path / "nothing")
    tree["teacher"] = {"checkpoint": str(tmp_path / "no.safetensors")}
    problems = probe_node(settings(), "never written", "host/ab12").problems
    assert [text.partition(" is not")[0].partition(" cannot")[0] for text in problems] == [
        f"node host/ab12: store {tree['store']}",
        f"node host/ab12: data.root {tmp_path}/nothing",
        f"node host/ab12: teacher.checkpoint {tmp_path}/no.safetensors",
    ]


def test_a_remote_root_is_not_checked_on_the_disk(
    tree: dict[str, Any], settings: Settings, token: str
) -> None:
    tree["data"]["root"] = "s3://bucket/camvid"
    assert probe_node(settings(), token, "a").problems == ()


def test_software_that_differs_is_a_line_for_each_package() -> None:
    first = NodeFacts(node="a", versions={"ray": "2.60.0", "torch": "2.14.1"})
    second = NodeFacts(node="b", versions={"ray": "2.60.0", "torch": "2.13.0"})
    silent = NodeFacts(node="c", versions={})
    (line,) = version_mismatches([first, second, silent])
    assert line == (
        "versions: torch is 2.14.1 on a, 2.13.0 on b; needed is one version on all nodes: install "
        "one of them everywhere"
    )
    assert version_mismatches([first, first]) == []


def test_the_estimates_are_those_worked_by_hand() -> None:
    sizes = Sizes(student=1000, learned=1500)
    # 3 running trials have 2 x 4 x 1500 bytes of checkpoint, twice while they write; they, the
    # leaders, the baseline and the as-written trial have 2 x 4 x 1000 bytes of weights
    assert (
        disk_bytes(sizes, trials=50, concurrent=3, keep_weights=5)
        == 3 * 2 * 12_000 + (3 + 5 + 2) * 8_000
    )
    assert (
        disk_bytes(sizes, trials=5000, concurrent=3, keep_weights=5)
        == 3 * 2 * 12_000 + (3 + 5 + 2) * 8_000
    )
    assert (
        disk_bytes(sizes, trials=50, concurrent=3, keep_weights=None) == 3 * 2 * 12_000 + 50 * 8_000
    )
    assert disk_bytes(sizes, trials=1, concurrent=3, keep_weights=5) == 2 * 12_000 + 8_000
    assert wall_s(2.0, epochs=50, trials=10, concurrent=3) == 2.0 * 50 * 4


def test_the_size_of_a_searched_student_is_that_of_the_largest(
    tree: dict[str, Any], settings: Settings
) -> None:
    tree |= {"method": {"name": "none"}, "teacher": None}
    alone = check_networks(settings(), num_classes=12)
    tree["search"] = {
        "student.backbone": {"choice": ["mobilenet_v2", "resnet34", "resnet18"]},
        "student.width": {"float": [0.125, 0.25]},
        "optim.lr": {"float": [0.1, 1.0]},
    }
    largest = ModelSettings(backbone="resnet34", width=0.25)
    params = sum(
        parameter.numel() for parameter in build_model(largest, num_classes=12).parameters()
    )
    assert check_networks(settings(), num_classes=12) == Sizes(student=params, learned=params)
    assert params > alone.student
    assert check_networks(settings(), num_classes=12, searching=False) == alone
    assert {
        (each.student.backbone, each.student.width) for each in searched_students(settings())
    } == {(backbone, 0.25) for backbone in ("mobilenet_v2", "resnet34", "resnet18")}
    tree["search"] = {"optim.lr": {"float": [0.1, 1.0]}}
    assert check_networks(settings(), num_classes=12) == alone


def test_too_little_disk_space_is_a_line_with_the_arithmetic(
    settings: Settings, tmp_path: Path
) -> None:
    Path(settings().store).mkdir()
    capacity = Capacity(
        shape=GroupShape(workers=1, cpus_per_worker=1, gpus_per_worker=0), groups=2, nodes=[]
    )
    assert disk_problems(settings(), capacity, Sizes(student=10, learned=10), trials=3) == []
    large = Sizes(student=10**12, learned=10**12)
    (line,) = disk_problems(settings(), capacity, large, trials=3)
    assert re.match(
        r"store .*: 3 trials take up to 52154\.06 GiB of checkpoints and weights, and [\d.]+ GiB "
        r"are",
        line,
    )


ASK = """
import os, sys
from attnfd_ray.runtime.cluster import environment
environment.prepare()
import ray
from pathlib import Path
from attnfd_ray.config.loader import load_experiment
from attnfd_ray.runtime.cluster import probe
from attnfd_ray.runtime.cluster.connect import connected
settings = load_experiment(Path(sys.argv[1]))
with connected():
    nodes = ray.nodes()
    gone = dict(nodes[0], NodeID="ab" * 28, NodeManagerHostname="gone")
    probe._NODE_TIMEOUT_S = 5.0
    directory = probe._directory(settings, "t0")
    directory.mkdir(parents=True)
    (directory / "driver").write_text("t0")
    for facts in probe._probe_remotely(settings, "t0", [*nodes, gone]):
        print(len(facts.problems), bool(facts.versions), *facts.problems)
"""


@pytest.mark.ray
def test_nodes_are_probed_and_one_that_is_gone_is_reported(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(write(tree, tmp_path))],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    alive, gone = done.stdout.splitlines()
    assert alive == "0 True"
    assert gone.startswith("1 False node gone/ababab: did not answer within 5 s (")


@pytest.mark.ray
def test_check_prints_go_with_the_arithmetic_and_leaves_no_trace(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    done = attnfd_ray("check", write(tree, tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("data: 24 train and 6 val images, 12 classes, data_hash ")
    assert [line.partition(":")[0] for line in lines] == [
        *("data", "networks", "capacity", "disk", "time", "nodes", "go")
    ]
    assert "unknown: the store has no epoch of 'tiny' yet" in lines[4]
    assert not list((Path(tree["store"]) / "preflight").iterdir())


@pytest.mark.ray
@pytest.mark.parametrize("command", ["check", "train"])
def test_more_workers_than_the_capacity_end_at_once_with_the_arithmetic(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path, command: str
) -> None:
    cpus = len(os.sched_getaffinity(0))
    tree["scaling"] = {"workers": 2 * cpus}
    start = time.monotonic()
    done = attnfd_ray(command, write(tree, tmp_path), "--set", f"train.batch_size={4 * cpus}")
    assert time.monotonic() - start < 30
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"scaling: {2 * cpus} workers x (1 CPU) do not fit on 1 node(s) with "
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.ray
def test_it_waits_as_long_as_asked_and_logs_that(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    cpus = len(os.sched_getaffinity(0))
    tree["scaling"] = {"workers": 2 * cpus}
    file = write(tree, tmp_path)
    start = time.monotonic()
    done = attnfd_ray("check", file, "--wait-timeout", "5", "--set", f"train.batch_size={4 * cpus}")
    assert time.monotonic() - start > 5
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("waiting up to 5 s for capacity: scaling: ")
    assert second.endswith("(waited 5 s for it)")
