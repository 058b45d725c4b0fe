"""The nodes of a cluster while a command runs there: one that goes is told, since its work may wait
for room.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from attnfd_ray.runtime.cluster import ray_private
from attnfd_ray.runtime.cluster.environment import START_S, START_TRIES, THREAD_NAME

_LOOK_S = 2.0  # from one look at the cluster to the next


def names_of_alive() -> dict[str, str]:
    """Return id -> name of the nodes that are there."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["NodeManagerHostname"] for node in nodes if node["Alive"]}


def alive() -> set[str]:
    """Return the ids of the nodes that are there."""
    return set(names_of_alive())


def place_of_logs() -> str:
    """Return host:directory of what Ray keeps of this node's processes; there it stays when they
    are gone.
    """
    return f"{socket.gethostname()}:{ray_private.log_directory()}"


@contextmanager
def watched(say: Callable[[str], None]) -> Iterator[None]:
    """While this is open, tell of each node that goes, from a thread of its own."""
    known, over = names_of_alive(), threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_S):
            now = names_of_alive()
            for node in known.keys() - now.keys():
                say(
                    f"node {known.pop(node)} is gone; what ran there goes on from its last epoch "
                    "where there is room, "
                    f"and ends if there is none for {START_S * START_TRIES / 60:.0f} min"
                )
            known.update(now)

    thread = threading.Thread(target=watch, name=f"{THREAD_NAME}-nodes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LOOK_S)  # it may be asking a cluster that is gone
