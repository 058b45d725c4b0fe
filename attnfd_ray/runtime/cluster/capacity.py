"""The shape of a worker group, and how many groups fit on a cluster. Arithmetic only, no ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnfd_ray.config.schema import ScalingSettings
from attnfd_ray.errors import CapacityError

Resources = Mapping[str, float]  # of one node or one worker, by Ray's names


@dataclass(frozen=True, kw_only=True)
class GroupShape:
    """How many workers a group has, and the CPUs and GPUs of each."""

    workers: int
    cpus_per_worker: int
    gpus_per_worker: int

    def resources(self) -> dict[str, float]:
        """Return the resources of one worker, by Ray's names."""
        needed = {"CPU": float(self.cpus_per_worker)}
        if self.gpus_per_worker:
            needed["GPU"] = float(self.gpus_per_worker)
        return needed

    def resources_text(self) -> str:
        """Return the resources of one worker as text: `4 CPU + 1 GPU`."""
        return " + ".join(f"{amount:g} {name}" for name, amount in self.resources().items())

    def nodes_text(self, nodes: Sequence[Resources]) -> str:
        """Return what each node has of the resources a worker needs: `8 CPU + 2 GPU; 16 CPU`."""
        names = list(self.resources())
        return "; ".join(
            " + ".join(f"{node.get(name, 0):g} {name}" for name in names) for node in nodes
        )


def group_shape(scaling: ScalingSettings, nodes: Sequence[Resources]) -> GroupShape:
    """Return the shape that the settings ask for.

    `gpus_per_worker: auto` is 1 if any node has a GPU, else 0.
    """
    if scaling.gpus_per_worker == "auto":
        gpus = int(any(node.get("GPU", 0) >= 1 for node in nodes))
    else:
        gpus = scaling.gpus_per_worker
    return GroupShape(
        workers=scaling.workers, cpus_per_worker=scaling.cpus_per_worker, gpus_per_worker=gpus
    )


def workers_that_fit(shape: GroupShape, nodes: Sequence[Resources]) -> int:
    """Return how many workers the nodes can run at once; a worker never spans two nodes."""
    needed = shape.resources()
    return sum(
        int(min(node.get(name, 0.0) // amount for name, amount in needed.items())) for node in nodes
    )


def concurrency(
    shape: GroupShape, nodes: Sequence[Resources], *, asked: int | str, trials: int
) -> int:
    """Return how many groups to run at once, at most one per trial.

    `asked` is a number of groups, or "auto" for as many as fit. Raises CapacityError, with the
    arithmetic, if that number does not fit, or for "auto" not even one group.
    """
    num_workers = workers_that_fit(shape, nodes)
    num_groups = num_workers // shape.workers
    wanted = 1
    if asked != "auto":
        wanted = int(asked)
    if num_groups < wanted:
        trials_text = ""
        if wanted > 1:
            trials_text = f"{wanted} trials at once x "
        raise CapacityError(
            f"scaling: {trials_text}{shape.workers} workers x ({shape.resources_text()}) do not "
            f"fit on {len(nodes)} node(s) with {shape.nodes_text(nodes)}; the capacity is "
            f"{num_workers} such worker(s): lower scaling.workers, scaling.cpus_per_worker or "
            "tune.concurrent"
        )
    if asked == "auto":
        return min(num_groups, trials)
    return min(wanted, trials)


def alive_resources(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return the resources of each node that is alive; `nodes` is what `ray.nodes()` returns."""
    return [dict(node["Resources"]) for node in nodes if node["Alive"]]
