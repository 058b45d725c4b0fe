"""Nodes that are lost while a command runs, with a fake cluster."""

from __future__ import annotations

from typing import Any

import pytest
from processes import wait_until

from attnfd_ray.errors import ClusterError
from attnfd_ray.runtime import session
from attnfd_ray.runtime.cluster import nodes
from attnfd_ray.runtime.cluster.capacity import GroupShape
from attnfd_ray.runtime.cluster.preflight import NO_WAIT, Capacity


def test_a_lost_node_is_logged_once_and_a_new_one_is_watched_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {"id1": "alpha", "id2": "beta"}
    monkeypatch.setattr(nodes, "names_of_alive", lambda: dict(names))
    monkeypatch.setattr(nodes, "_POLL_S", 0.01)
    lines: list[str] = []
    with nodes.node_watch(lines.append):
        assert nodes.alive() == {"id1", "id2"}
        names["id3"] = "gamma"
        del names["id1"]
        wait_until("the line on alpha", lambda: len(lines) == 1, timeout_s=10)
        del names["id3"]
        wait_until("the line on gamma", lambda: len(lines) == 2, timeout_s=10)
    starts = [line.partition(";")[0] for line in lines]
    assert starts == ["node alpha is gone", "node gamma is gone"]
    assert lines[0].endswith(
        "; its trials resume from their last epoch once there is capacity for them, and end if "
        "there is none for 8 min"
    )


def test_a_node_that_is_lost_during_the_check_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alive = ["id1", "id2"]

    def capacity() -> Capacity:
        nodes = [{"NodeID": node, "Alive": True} for node in alive]
        return Capacity(
            shape=GroupShape(workers=1, cpus_per_worker=1, gpus_per_worker=0),
            groups=len(nodes),
            nodes=nodes,
        )

    def problems(_: object, asked: Capacity) -> list[str]:
        silent = [node["NodeID"] for node in asked.nodes if node["NodeID"] in ("id2", "id3")]
        if "id2" in silent:
            alive.remove("id2")
        return [f"node {node} did not answer" for node in silent]

    monkeypatch.setattr(session, "wait_for_capacity", lambda *_, **__: capacity())
    monkeypatch.setattr(session, "node_problems", problems)
    monkeypatch.setattr(session, "disk_problems", lambda *_, **__: [])
    monkeypatch.setattr(session, "alive", lambda: set(alive))
    lines: list[str] = []
    unused: Any = None  # the settings and the sizes

    def check() -> Capacity:
        return session.checked_capacity(
            unused, unused, asked=1, trials=1, wait_policy=NO_WAIT, log=lines.append
        )

    assert check().groups == 1
    assert lines == ["a node was lost during the check; checking the others again"]
    alive.append("id3")
    with pytest.raises(ClusterError, match="node id3 did not answer"):
        check()
