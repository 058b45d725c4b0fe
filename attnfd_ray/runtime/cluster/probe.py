"""Probes each node before anything runs there: versions, store, data and weights.

Ray runs the probe on the nodes; torch is imported only if there are weights to check.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from attnfd_ray.config.schema import ExperimentSettings, ModelSettings
from attnfd_ray.data.storage.image_cache import checked_limit_bytes
from attnfd_ray.errors import DataError, StoreError
from attnfd_ray.runtime.cluster.versions import versions
from attnfd_ray.store import layout

_NODE_TIMEOUT_S = 60.0
_DISK_TIMEOUT_S = 5.0
_DISK_POLL_S = 0.2
Weights = Sequence[tuple[str, ModelSettings]]  # (setting, network), as `first_weights` returns them

_SAME_EVERYWHERE = ("python", "ray", "torch", "optuna", "attnfd-ray")


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """A node's name, its package versions, and its problems, one line each."""

    node: str
    versions: Mapping[str, str]
    problems: tuple[str, ...] = ()


def probe_node(
    settings: ExperimentSettings, token: str, node: str, weights: Weights = ()
) -> NodeFacts:
    """Return the facts of the node on which this runs; `node` is its name in the problems.

    `token` is what the driver has written into the store, and shows whether the store is shared.
    """
    problems = (
        *_store_problems(settings, token, node),
        *_data_problems(settings),
        *_cache_problems(settings),
        *_weight_problems(weights),
    )
    return NodeFacts(
        node=node, versions=versions(), problems=tuple(f"node {node}: {text}" for text in problems)
    )


def probe_nodes(
    settings: ExperimentSettings, nodes: Sequence[Mapping[str, Any]]
) -> list[NodeFacts]:
    """Return the facts of each node of `ray.nodes()` that is alive, this node first.

    A node that does not answer has that as its problem. Raises StoreError if this node itself
    cannot write to the store.
    """
    from attnfd_ray.runtime.files.first_weights import first_weights  # imports torch

    weights = first_weights(settings)
    token = uuid.uuid4().hex
    directory = _directory(settings, token)
    try:
        directory.mkdir(parents=True)
        (directory / "driver").write_text(token, encoding="ascii")
    except OSError as error:
        raise StoreError(
            f"{settings.store}: cannot be written ({error.strerror}); give another --set store="
        ) from None
    this_node = ray.get_runtime_context().get_node_id()
    others = [node for node in nodes if node["Alive"] and node["NodeID"] != this_node]
    try:
        return [
            probe_node(settings, token, socket.gethostname(), weights),
            *_probe_remotely(settings, token, others, weights),
        ]
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # a slow node may still write into it


def version_mismatches(facts: Sequence[NodeFacts]) -> list[str]:
    """Return a line for each package whose version is not the same on all nodes."""
    lines = []
    for package in _SAME_EVERYWHERE:
        found = {fact.node: fact.versions.get(package, "none") for fact in facts if fact.versions}
        if len(set(found.values())) > 1:
            per_node = ", ".join(f"{version} on {node}" for node, version in found.items())
            lines.append(
                f"versions: {package} is {per_node}; needed is one version on all nodes: install "
                "one of them everywhere"
            )
    return lines


def _probe_remotely(
    settings: ExperimentSettings,
    token: str,
    nodes: Sequence[Mapping[str, Any]],
    weights: Weights = (),
) -> Iterator[NodeFacts]:
    """Probe all nodes at once, and yield the facts of each."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(probe_node)
    pending = {}
    for node in nodes:
        on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = f"{node['NodeManagerHostname']}/{node['NodeID'][:6]}"
        pending[name] = task.options(scheduling_strategy=on_node).remote(
            settings, token, name, weights
        )
    if pending:
        ray.wait(list(pending.values()), num_returns=len(pending), timeout=_NODE_TIMEOUT_S)
    for name, reference in pending.items():
        try:
            facts: NodeFacts = ray.get(reference, timeout=0.1)
        except Exception as error:  # noqa: BLE001 - whatever it is, the node cannot be used
            yield NodeFacts(node=name, versions={}, problems=(_no_answer(name, error),))
            continue
        # the node has written into its store; the file must be visible in the driver's store
        file = _directory(settings, token) / _file_name(name)
        if not facts.problems and not _appears(file):
            facts = replace(facts, problems=(f"node {name}: {_not_shared(settings)}",))
        yield facts


def _no_answer(name: str, error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    reason = lines[-1] or type(error).__name__
    return (
        f"node {name}: did not answer within {_NODE_TIMEOUT_S:g} s ({reason}); check that "
        "attnfd-ray is installed there"
    )


def _store_problems(settings: ExperimentSettings, token: str, node: str) -> Iterator[str]:
    """Yield a problem if the driver's file is not in the store; else write this node's own file."""
    directory = _directory(settings, token)
    try:
        if _appears(directory / "driver"):
            (directory / _file_name(node)).write_text(token, encoding="ascii")
        else:
            yield _not_shared(settings)
    except OSError as error:
        yield (
            f"store {settings.store} cannot be written ({error.strerror}); give every node write "
            "access to it"
        )


def _appears(file: Path) -> bool:
    """Return whether a file exists; a network disk may show another node's file after a delay."""
    deadline = time.monotonic() + _DISK_TIMEOUT_S
    while not file.is_file():
        if time.monotonic() > deadline:
            return False
        time.sleep(_DISK_POLL_S)
    return True


def _not_shared(settings: ExperimentSettings) -> str:
    return (
        f"store {settings.store} is not the one of the driver's node; needed is a directory that "
        "all nodes share (NFS, a shared volume)"
    )


def _data_problems(settings: ExperimentSettings) -> Iterator[str]:
    way_out = "put it on every node, or on a disk that all nodes share"
    root = settings.data.root
    is_local = "://" not in root
    if is_local and not (Path(root).is_dir() and os.access(root, os.R_OK | os.X_OK)):
        yield f"data.root {root} cannot be read; {way_out}"
    teacher = settings.teacher
    if teacher is None or not teacher.checkpoint:
        return
    if not os.access(teacher.checkpoint, os.R_OK):
        yield f"teacher.checkpoint {teacher.checkpoint} cannot be read; {way_out}"


def _weight_problems(weights: Weights) -> list[str]:
    if not weights:
        return []
    from attnfd_ray.runtime.files.first_weights import local_problems  # imports torch

    return list(local_problems(weights))


def _cache_problems(settings: ExperimentSettings) -> list[str]:
    try:
        checked_limit_bytes(settings.data)
    except DataError as error:
        return error.problems
    return []


def _directory(settings: ExperimentSettings, token: str) -> Path:
    return layout.preflight(settings.store, token)


def _file_name(node: str) -> str:
    return node.replace("/", "-")
