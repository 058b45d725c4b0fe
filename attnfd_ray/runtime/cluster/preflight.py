"""Whether a command can go, before anything is started that would wait for what cannot come; with
the arithmetic.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
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
from attnfd_ray.runtime.cluster.probe import probe_nodes, version_mismatches
from attnfd_ray.store.store import Store

_POLL_S = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class WaitPolicy:
    """How long to wait for nodes, seconds, and how many of them; a cluster that scales up takes
    minutes.
    """

    wait_s: float = 0.0
    nodes: int = 1


NO_WAIT = WaitPolicy()


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the cluster holds: the shape of a worker group, how many run at once, and the nodes as
    Ray tells them.
    """

    shape: GroupShape
    groups: int
    nodes: Sequence[Mapping[str, Any]]


def wait_for_capacity(
    settings: ExperimentSettings,
    *,
    asked: int | str,
    trials: int,
    patience: WaitPolicy,
    say: Say,
    clock: Any = time,
) -> Capacity:
    """Return how many groups run at once, waiting as long as `patience` allows; CapacityError, with
    the sum, after.
    """
    start, told = clock.monotonic(), False
    try:
        while True:
            nodes = ray.nodes()  # type: ignore[no-untyped-call]
            try:
                return _room_of(
                    settings, nodes, asked=asked, trials=trials, expected=patience.nodes
                )
            except CapacityError as error:
                if clock.monotonic() - start >= patience.wait_s:
                    waited = f" (waited {patience.wait_s:g} s for it)" if patience.wait_s else ""
                    raise CapacityError(f"{error}{waited}") from None
                if not told:
                    say(f"waiting up to {patience.wait_s:g} s for room: {error}")
                    shape = group_shape(settings.scaling, alive_resources(nodes))
                    _ask_to_scale_up(
                        [shape.resources()] * shape.workers * (1 if asked == "auto" else int(asked))
                    )
                    told = True
                clock.sleep(_POLL_S)
    finally:
        if told:  # what runs from here on keeps its nodes itself
            _ask_to_scale_up([])


def _room_of(
    settings: ExperimentSettings,
    nodes: Sequence[Mapping[str, Any]],
    *,
    asked: int | str,
    trials: int,
    expected: int,
) -> Capacity:
    resources = alive_resources(nodes)
    if len(resources) < expected:
        raise CapacityError(
            f"cluster: {len(resources)} of {expected} expected nodes are there; start the others, "
            "wait longer with "
            "--wait-timeout, or expect fewer"
        )
    shape = group_shape(settings.scaling, resources)
    return Capacity(
        shape=shape, groups=concurrency(shape, resources, asked=asked, trials=trials), nodes=nodes
    )


def problems_of_nodes(settings: ExperimentSettings, room: Capacity) -> list[str]:
    """Return what is wrong with any node, a line each: disks, data, versions."""
    facts = probe_nodes(settings, room.nodes)
    return [*(line for fact in facts for line in fact.problems), *version_mismatches(facts)]


def arithmetic(
    settings: ExperimentSettings, room: Capacity, sizes: Sizes, *, trials: int
) -> list[str]:
    """Return the sums behind a go: what a trial takes, what there is, the disk and the time, a line
    each.
    """
    resources = alive_resources(room.nodes)
    needs = " + ".join(f"{amount:g} {name}" for name, amount in room.shape.resources().items())
    has = "; ".join(
        " + ".join(f"{node.get(name, 0):g} {name}" for name in room.shape.resources())
        for node in resources
    )
    needed, free = _disk(settings, room, sizes, trials)
    hold = f"{len(resources)} node(s) with {has} hold {workers_that_fit(room.shape, resources)} such workers"
    return [
        (
            f"capacity: {room.shape.workers} worker(s) x ({needs}) a trial; {hold}: {room.groups} at "
            f"once of {trials}"
        ),
        (
            f"disk: checkpoints and weights take up to {needed / GIB:.2f} GiB; {settings.store} has "
            f"{free / GIB:.2f} free"
        ),
        f"time: {_time(settings, room, trials)}",
    ]


def lacking_disk(
    settings: ExperimentSettings, room: Capacity, sizes: Sizes, *, trials: int
) -> list[str]:
    """Return a line if the store's disk has no room for what the runs hold in it."""
    needed, free = _disk(settings, room, sizes, trials)
    text = (
        f"store {settings.store}: {trials} trials take up to {needed / GIB:.2f} GiB of "
        "checkpoints and weights and "
        f"{free / GIB:.2f} GiB are free; free some (attnfd-ray gc), set a lower tune.keep_weights "
        "or tune.concurrent, "
        "or give another --set store="
    )
    return [text] if needed > free else []


def _disk(
    settings: ExperimentSettings, room: Capacity, sizes: Sizes, trials: int
) -> tuple[int, int]:
    """Return the bytes that are needed, and that are free."""
    needed = disk_bytes(
        sizes, trials=trials, concurrent=room.groups, keep_weights=settings.tune.keep_weights
    )
    return needed, shutil.disk_usage(settings.store).free


def _time(settings: ExperimentSettings, room: Capacity, trials: int) -> str:
    rows = (
        Store.open(settings.store, create=False)
        .epochs(columns=["experiment", "wall_s"])
        .to_pylist()
    )
    walls_s = [
        row["wall_s"] for row in rows if row["experiment"] == settings.experiment and row["wall_s"]
    ]
    if not walls_s:
        return f"unknown: no epoch of '{settings.experiment}' was run yet"
    epoch_s, epochs = statistics.median(walls_s), settings.train.epochs
    total_s = wall_s(epoch_s, epochs=epochs, trials=trials, concurrent=room.groups)
    return (
        f"up to {total_s / 3600:.2f} h, {epochs} epochs a trial of {epoch_s:.1f} s (median of "
        f"{len(walls_s)} run "
        "before); early stopping makes it less"
    )


def _ask_to_scale_up(bundles: list[dict[str, float]]) -> None:
    """Tell an autoscaler what is waited for, until told otherwise; a cluster without one does not
    mind.
    """
    if cluster_address():
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=bundles)
