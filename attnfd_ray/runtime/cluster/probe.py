"""What one node of a cluster says of itself before anything runs there: ray to reach it, torch only
for weights.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from attnfd_ray.config.schema import ExperimentSettings, ModelSettings
from attnfd_ray.data.storage.image_cache import checked_limit_bytes
from attnfd_ray.errors import DataError, StoreError
from attnfd_ray.runtime.cluster.versions import versions

_PATIENCE_S, _DISK_PATIENCE_S = 60.0, 5.0
Weights = Sequence[tuple[str, ModelSettings]]

_MUST_AGREE = ("python", "ray", "torch", "optuna", "attnfd-ray")


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """A node's name, its software, and what it cannot read, write or hold, a line each."""

    node: str
    versions: Mapping[str, str]
    problems: tuple[str, ...] = ()


def probe_node(
    settings: ExperimentSettings, token: str, node: str, weights: Weights = ()
) -> NodeFacts:
    """Return what the node that this runs on says; `token` is what the driver wrote into the store.

    `weights` are (setting, network) of those that start from a file.
    """
    found = (
        *_unshared(settings, token, node),
        *_unreadable(settings),
        *_no_cache(settings),
        *_no_weights(weights),
    )
    return NodeFacts(
        node=node, versions=versions(), problems=tuple(f"node {node}: {text}" for text in found)
    )


def probe_nodes(
    settings: ExperimentSettings, nodes: Sequence[Mapping[str, Any]]
) -> list[NodeFacts]:
    """Return the facts of each alive node of `ray.nodes()`, this one first; what goes wrong is
    among the problems.

    StoreError where this node itself cannot write to the store.
    """
    from attnfd_ray.runtime.files.first_weights import (
        first_weights,  # torch: not on every node that this is imported on
    )

    here, token, weights = (
        ray.get_runtime_context().get_node_id(),
        uuid.uuid4().hex,
        first_weights(settings),
    )
    directory = _directory(settings, token)
    try:
        directory.mkdir(parents=True)
        (directory / "driver").write_text(token, encoding="ascii")
    except OSError as error:
        raise StoreError(
            f"{settings.store}: cannot be written ({error.strerror}); give another --set store="
        ) from None
    try:
        return [
            probe_node(settings, token, socket.gethostname(), weights),
            *_answers(
                settings,
                token,
                [node for node in nodes if node["Alive"] and node["NodeID"] != here],
                weights,
            ),
        ]
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # a late node may still write into it


def version_mismatches(facts: Sequence[NodeFacts]) -> list[str]:
    """Return a line for each package whose versions differ between nodes; such a run breaks in the
    middle.
    """
    lines = []
    for package in _MUST_AGREE:
        found = {fact.node: fact.versions.get(package, "none") for fact in facts if fact.versions}
        if len(set(found.values())) > 1:
            told = ", ".join(f"{version} on {node}" for node, version in found.items())
            lines.append(
                f"versions: {package} is {told}; needed is the same everywhere: install one of them"
            )
    return lines


def _answers(
    settings: ExperimentSettings,
    token: str,
    nodes: Sequence[Mapping[str, Any]],
    weights: Weights = (),
) -> Iterator[NodeFacts]:
    """Ask every node at once; one that does not answer in time, or cannot, is a problem of its
    own.
    """
    ask: Any = ray.remote(num_cpus=0, max_retries=0)(probe_node)
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = f"{node['NodeManagerHostname']}/{node['NodeID'][:6]}"
        asked[name] = ask.options(scheduling_strategy=there).remote(settings, token, name, weights)
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=_PATIENCE_S) if asked else None
    for name, answer in asked.items():
        try:
            facts: NodeFacts = ray.get(answer, timeout=0.1)
        except Exception as error:  # noqa: BLE001 - whatever it is, the node cannot be used
            reason = next(iter(str(error).strip().splitlines()[::-1]), "") or type(error).__name__
            text = f"node {name}: did not answer within {_PATIENCE_S:g} s ({reason}); look whether attnfd-ray is there"
            yield NodeFacts(node=name, versions={}, problems=(text,))
            continue
        file = _directory(settings, token) / _file_name(name)
        unseen = (
            () if facts.problems or _appears(file) else (_not_shared(settings, f"node {name}: "),)
        )
        yield NodeFacts(**vars(facts) | {"problems": (*facts.problems, *unseen)})


def _unshared(settings: ExperimentSettings, token: str, node: str) -> Iterator[str]:
    directory = _directory(settings, token)
    try:
        if _appears(directory / "driver"):
            (directory / _file_name(node)).write_text(token, encoding="ascii")
        else:
            yield _not_shared(settings)
    except OSError as error:
        yield f"store {settings.store} cannot be written ({error.strerror}); let every node write there"


def _appears(file: Path) -> bool:
    """Return whether a file is there, soon: a network disk may tell late of what another node
    wrote.
    """
    deadline = time.monotonic() + _DISK_PATIENCE_S
    while not file.is_file():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _not_shared(settings: ExperimentSettings, where: str = "") -> str:
    return (
        f"{where}store {settings.store} is not the one of this node; needed is a directory that "
        "all nodes share "
        "(NFS, a shared volume)"
    )


def _unreadable(settings: ExperimentSettings) -> Iterator[str]:
    root = settings.data.root
    if "://" not in root and not (Path(root).is_dir() and os.access(root, os.R_OK | os.X_OK)):
        yield f"data.root {root} cannot be read; put the data there on every node, or on a disk that all share"
    checkpoint = settings.teacher.checkpoint if settings.teacher else None
    if checkpoint and not os.access(checkpoint, os.R_OK):
        yield f"teacher.checkpoint {checkpoint} cannot be read; put it there on every node, or on a disk that all share"


def _no_weights(weights: Weights) -> list[str]:
    if not weights:
        return []
    from attnfd_ray.runtime.files.first_weights import (
        problems_here,
    )  # torch takes seconds to import

    return list(problems_here(weights))


def _no_cache(settings: ExperimentSettings) -> list[str]:
    try:
        checked_limit_bytes(settings.data)
    except DataError as error:
        return error.problems
    return []


def _directory(settings: ExperimentSettings, token: str) -> Path:
    return Path(settings.store) / "preflight" / token


def _file_name(node: str) -> str:
    return node.replace("/", "-")
