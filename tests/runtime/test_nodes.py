"""Nodes that go while a command runs, by a cluster that is made up."""

from __future__ import annotations

from typing import Any

import pytest
from processes import wait_until

from attnfd_ray.errors import ClusterError
from attnfd_ray.runtime import session
from attnfd_ray.runtime.cluster import nodes
from attnfd_ray.runtime.cluster.capacity import GroupShape
from attnfd_ray.runtime.cluster.preflight import NO_WAIT, Capacity


def test_a_node_that_goes_is_told_once_and_one_that_comes_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {"id1": "alpha", "id2": "beta"}
    monkeypatch.setattr(nodes, "names_of_alive", lambda: dict(there))
    monkeypatch.setattr(nodes, "_LOOK_S", 0.01)
    told: list[str] = []
    with nodes.watched(told.append):
        assert nodes.alive() == {"id1", "id2"}
        there["id3"] = "gamma"
        del there["id1"]
        wait_until("the word of alpha", lambda: len(told) == 1, patience_s=10)
        del there["id3"]
        wait_until("the word of gamma", lambda: len(told) == 2, patience_s=10)
    assert [text.partition(";")[0] for text in told] == ["node alpha is gone", "node gamma is gone"]
    assert told[0].endswith(
        "goes on from its last epoch where there is room, and ends if there is none for 8 min"
    )


def test_a_node_that_goes_while_it_is_asked_is_no_reason_to_refuse_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = ["id1", "id2"]

    def room() -> Capacity:
        nodes = [{"NodeID": node, "Alive": True} for node in there]
        return Capacity(
            shape=GroupShape(workers=1, cpus_per_worker=1, gpus_per_worker=0),
            groups=len(nodes),
            nodes=nodes,
        )

    def problems(_: object, asked: Capacity) -> list[str]:
        silent = [node["NodeID"] for node in asked.nodes if node["NodeID"] in ("id2", "id3")]
        if "id2" in silent:
            there.remove("id2")
        return [f"node {node} did not answer" for node in silent]

    monkeypatch.setattr(session, "wait_for_capacity", lambda *_, **__: room())
    monkeypatch.setattr(session, "problems_of_nodes", problems)
    monkeypatch.setattr(session, "lacking_disk", lambda *_, **__: [])
    monkeypatch.setattr(session, "alive", lambda: set(there))
    said: list[str] = []
    known: Any = None  # what is looked at here is who answers

    def look() -> Capacity:
        return session.checked_capacity(
            known, known, asked=1, trials=1, patience=NO_WAIT, say=said.append
        )

    assert look().groups == 1
    assert said == ["a node has gone while it was asked; looking again at what is left"]
    there.append("id3")
    with pytest.raises(ClusterError, match="node id3 did not answer"):
        look()
