"""What a worker group takes, and how many of them the cluster holds. Arithmetic only: no ray
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnfd_ray.config.schema import ScalingSettings
from attnfd_ray.errors import CapacityError


@dataclass(frozen=True, kw_only=True)
class GroupShape:
    """Workers of one group, and what each takes."""

    workers: int
    cpus_per_worker: int
    gpus_per_worker: int

    def resources(self) -> dict[str, float]:
        """Return what one worker takes, in Ray's words."""
        gpus = {"GPU": float(self.gpus_per_worker)} if self.gpus_per_worker else {}
        return {"CPU": float(self.cpus_per_worker), **gpus}


def group_shape(scaling: ScalingSettings, nodes: Sequence[Mapping[str, float]]) -> GroupShape:
    """Return the shape the settings ask for; `gpus_per_worker: auto` is 1 where any node has a
    GPU.
    """
    gpus = scaling.gpus_per_worker
    if gpus == "auto":
        gpus = 1 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0
    return GroupShape(
        workers=scaling.workers, cpus_per_worker=scaling.cpus_per_worker, gpus_per_worker=gpus
    )


def workers_that_fit(shape: GroupShape, nodes: Sequence[Mapping[str, float]]) -> int:
    """Return how many workers the nodes hold at once; a worker never spreads over two nodes."""
    each = shape.resources()
    return sum(
        int(min(node.get(name, 0.0) // amount for name, amount in each.items())) for node in nodes
    )


def concurrency(
    shape: GroupShape, nodes: Sequence[Mapping[str, float]], *, asked: int | str, trials: int
) -> int:
    """Return how many groups to run. Raises CapacityError, with the sum, where not even what is
    asked for fits.
    """
    places = workers_that_fit(shape, nodes)
    fit = places // shape.workers
    wanted = 1 if asked == "auto" else int(asked)
    if fit < wanted:
        need = " + ".join(f"{amount:g} {name}" for name, amount in shape.resources().items())
        have = "; ".join(
            " + ".join(f"{node.get(name, 0):g} {name}" for name in shape.resources())
            for node in nodes
        )
        groups = f"{wanted} trials at once x " if wanted > 1 else ""
        raise CapacityError(
            f"scaling: {groups}{shape.workers} workers x ({need}) do not fit on {len(nodes)} "
            f"node(s) with {have}; "
            f"there is room for {places} such worker(s): lower scaling.workers, "
            "scaling.cpus_per_worker or "
            "tune.concurrent"
        )
    return min(fit, trials) if asked == "auto" else min(wanted, trials)


def alive_resources(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return the resources of each node that is alive, from what `ray.nodes()` returns."""
    return [dict(node["Resources"]) for node in nodes if node["Alive"]]
