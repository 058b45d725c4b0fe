"""Checks before a command starts: capacity, nodes and disk space, with the arithmetic behind them.

So a command does not start and then wait for what the cluster can never provide.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.storage.free_space import GIB
from attnfd_ray.errors import CapacityError
from attnfd_ray.runtime.cluster.capacity import (
    GroupShape,
    alive_resources,
    concurrency,
    group_shape,
    workers_that_fit,
)
from attnfd_ray.runtime.cluster.environment import cluster_address
from attnfd_ray.runtime.cluster.estimate import Sizes, disk_bytes, wall_s
from attnfd_ray.runtime.cluster.nodes import Log
from attnfd_ray.runtime.cluster.probe import probe_nodes, version_mismatches
from attnfd_ray.store.store import Store

_POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class WaitPolicy:
    """How long to wait for capacity, in seconds, and how many nodes to wait for.

    A cluster that scales up takes minutes.
    """

    wait_s: float = 0.0
    nodes: int = 1


NO_WAIT = WaitPolicy()


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The shape of a worker group, how many groups run at once, and the nodes (`ray.nodes()`)."""

    shape: GroupShape
    groups: int
    nodes: Sequence[Mapping[str, Any]]


def wait_for_capacity(
    settings: ExperimentSettings,
    *,
    asked: int | str,
    trials: int,
    wait_policy: WaitPolicy,
    log: Log,
    clock: Any = time,
) -> Capacity:
    """Return the capacity for `asked` groups, waiting as long as `wait_policy` allows.

    `asked` is a number or "auto". Raises CapacityError, with the arithmetic, when the time is over.
    """
    start_s = clock.monotonic()
    is_waiting = False
    try:
        while True:
            nodes = ray.nodes()  # type: ignore[no-untyped-call]
            try:
                return _capacity_of(
                    settings, nodes, asked=asked, trials=trials, expected=wait_policy.nodes
                )
            except CapacityError as error:
                if clock.monotonic() - start_s >= wait_policy.wait_s:
                    raise _after_waiting(error, wait_policy) from None
                if not is_waiting:
                    log(f"waiting up to {wait_policy.wait_s:g} s for capacity: {error}")
                    _request_workers(settings, nodes, asked)
                    is_waiting = True
                clock.sleep(_POLL_S)
    finally:
        if is_waiting:  # from here on, the worker groups keep their nodes themselves
            _request_resources([])


def _after_waiting(error: CapacityError, wait_policy: WaitPolicy) -> CapacityError:
    """Return the error with the time that was spent on waiting, if any."""
    if not wait_policy.wait_s:
        return error
    return CapacityError(f"{error} (waited {wait_policy.wait_s:g} s for it)")


def _capacity_of(
    settings: ExperimentSettings,
    nodes: Sequence[Mapping[str, Any]],
    *,
    asked: int | str,
    trials: int,
    expected: int,
) -> Capacity:
    """Return the capacity of these nodes. Raises CapacityError if it is not enough."""
    resources = alive_resources(nodes)
    if len(resources) < expected:
        raise CapacityError(
            f"cluster: {len(resources)} of {expected} expected nodes are alive; start the others, "
            "wait longer with --wait-timeout, or expect fewer"
        )
    shape = group_shape(settings.scaling, resources)
    groups = concurrency(shape, resources, asked=asked, trials=trials)
    return Capacity(shape=shape, groups=groups, nodes=nodes)


def node_problems(settings: ExperimentSettings, capacity: Capacity) -> list[str]:
    """Return the problems of all nodes, one line each: disks, data, weights, versions."""
    facts = probe_nodes(settings, capacity.nodes)
    problems = [line for fact in facts for line in fact.problems]
    return problems + version_mismatches(facts)


def arithmetic(
    settings: ExperimentSettings, store: Store, capacity: Capacity, sizes: Sizes, *, trials: int
) -> list[str]:
    """Return the arithmetic behind a go: capacity, disk space and time, one line each."""
    shape = capacity.shape
    resources = alive_resources(capacity.nodes)
    needed_bytes, free_bytes = _disk(settings, capacity, sizes, trials)
    return [
        (
            f"capacity: {shape.workers} worker(s) x ({shape.resources_text()}) per trial; "
            f"{len(resources)} node(s) with {shape.nodes_text(resources)} hold "
            f"{workers_that_fit(shape, resources)} such workers: {capacity.groups} of {trials} "
            "trial(s) at once"
        ),
        (
            f"disk: checkpoints and weights take up to {needed_bytes / GIB:.2f} GiB; "
            f"{settings.store} has {free_bytes / GIB:.2f} GiB free"
        ),
        f"time: {_time_text(settings, store, capacity, trials)}",
    ]


def disk_problems(
    settings: ExperimentSettings, capacity: Capacity, sizes: Sizes, *, trials: int
) -> list[str]:
    """Return one line if the disk of the store has too little free space for the trials."""
    needed_bytes, free_bytes = _disk(settings, capacity, sizes, trials)
    if needed_bytes <= free_bytes:
        return []
    problem = (
        f"store {settings.store}: {trials} trials take up to {needed_bytes / GIB:.2f} GiB of "
        f"checkpoints and weights, and {free_bytes / GIB:.2f} GiB are free; free some (attnfd-ray "
        "gc), set a lower tune.keep_weights or tune.concurrent, or give another --set store="
    )
    return [problem]


def _disk(
    settings: ExperimentSettings, capacity: Capacity, sizes: Sizes, trials: int
) -> tuple[int, int]:
    """Return (needed, free) disk space of the store in bytes."""
    needed = disk_bytes(
        sizes,
        trials=trials,
        concurrent=capacity.groups,
        keep_weights=settings.tune.keep_weights,
    )
    return needed, shutil.disk_usage(settings.store).free


def _time_text(settings: ExperimentSettings, store: Store, capacity: Capacity, trials: int) -> str:
    """Return how long the trials take, from the epochs that the experiment has in the store."""
    rows = store.epochs(columns=["experiment", "wall_s"]).to_pylist()
    times_s = [
        row["wall_s"] for row in rows if row["experiment"] == settings.experiment and row["wall_s"]
    ]
    if not times_s:
        return f"unknown: the store has no epoch of '{settings.experiment}' yet"
    epoch_s = statistics.median(times_s)
    epochs = settings.train.epochs
    total_s = wall_s(epoch_s, epochs=epochs, trials=trials, concurrent=capacity.groups)
    return (
        f"up to {total_s / 3600:.2f} h, {epochs} epochs per trial of {epoch_s:.1f} s (median of "
        f"{len(times_s)} earlier epochs); early stopping makes it less"
    )


def _request_workers(
    settings: ExperimentSettings, nodes: Sequence[Mapping[str, Any]], asked: int | str
) -> None:
    """Ask the autoscaler for the workers of `asked` groups; of one group for "auto"."""
    shape = group_shape(settings.scaling, alive_resources(nodes))
    groups = 1
    if asked != "auto":
        groups = int(asked)
    _request_resources([shape.resources()] * shape.workers * groups)


def _request_resources(bundles: list[dict[str, float]]) -> None:
    """Ask the autoscaler for resources, until the next call; a cluster without one ignores it."""
    if cluster_address():
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=bundles)
