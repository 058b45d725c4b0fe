"""The nodes of a cluster while a command runs on it: which are alive, and which have gone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from attnfd_ray.runtime.cluster import ray_private
from attnfd_ray.runtime.cluster.environment import START_S, START_TRIES, THREAD_NAME

Log = Callable[[str], None]  # takes one line for the user

_POLL_S = 2.0


def names_of_alive() -> dict[str, str]:
    """Return node id -> host name of the nodes that are alive."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["NodeManagerHostname"] for node in nodes if node["Alive"]}


def alive() -> set[str]:
    """Return the ids of the nodes that are alive."""
    return set(names_of_alive())


def log_location() -> str:
    """Return host:directory of Ray's logs on this node; the files outlive their processes."""
    return f"{socket.gethostname()}:{ray_private.log_directory()}"


@contextmanager
def node_watch(log: Log) -> Iterator[None]:
    """Log each node that goes while this context is open, from a thread of its own."""
    known = names_of_alive()
    closed = threading.Event()

    def watch() -> None:
        while not closed.wait(_POLL_S):
            now = names_of_alive()
            for node in known.keys() - now.keys():
                log(
                    f"node {known.pop(node)} is gone; its trials resume from their last epoch once "
                    "there is capacity for them, and end if there is none for "
                    f"{START_S * START_TRIES / 60:.0f} min"
                )
            known.update(now)

    thread = threading.Thread(target=watch, name=f"{THREAD_NAME}-nodes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closed.set()
        thread.join(_POLL_S)  # it may be asking a cluster that is gone
