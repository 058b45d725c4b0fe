"""Nodes that go while a command runs, by a cluster that is made up."""

from __future__ import annotations

import pytest
from processes import wait_until

from attnfd_ray.runtime import nodes


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
    assert told[0].endswith("goes on from its last epoch where there is room, and ends if there is none for 8 min")
