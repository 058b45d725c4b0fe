"""The trial that Ray Tune runs: a thin shell that hands its job to a worker group and reports what
it hears.

Kept free of torch: its process starts in a second, and `reuse_actors` lets one process serve every
trial of a slot.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from attnfd_ray.runtime.jobs.messages import Event, Job
from attnfd_ray.search.objectives import measured_metrics

_SHARE = 0.0001  # of a resource that a node has one of, and nobody else asks for
_HEAD = "node:__internal_head__"


def resources() -> dict[str, float]:
    """Return what a trial asks for: a place on the driver's node, so that it dies with no other.

    A processor's share would never be free beside groups that take them all.
    """
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)  # type: ignore[no-untyped-call]
    # several nodes may have one address, in a test or a container, but there is only one head
    return {_HEAD if _HEAD in node["Resources"] else f"node:{node['NodeManagerAddress']}": _SHARE}


def trial(config: dict[str, Any]) -> None:
    """Report each epoch's metrics to Tune until the job is over; a failed job is reported, not
    raised.

    It never cancels its job: the driver does, when it decides to. So a shell that dies and is tried
    again finds its job where it was.
    """
    gone = {"failure_kind": "WORKER_LOST", "failure_text": "what served the workers is gone"}
    try:
        broker = ray.get_actor(config["broker"], namespace=config["namespace"])
    except ValueError:  # Ray's for an actor that it does not know any more
        tune.report(gone)
        return
    try:
        _follow(config["job"], broker)
    except ray.exceptions.RayActorError:
        tune.report(gone)


def _follow(job: Job, broker: Any) -> None:
    seen, over = 0, False
    ray.get(broker.submit.remote(job))
    while not over:
        event: Event = ray.get(broker.pull.remote(job.trial_id, seen=seen))
        over = event.kind != "epoch"
        if event.kind == "failed":
            tune.report({"failure_kind": event.failure_kind, "failure_text": event.failure_text})
        elif event.metrics["epoch"] > seen or measured_metrics(
            event.metrics
        ):  # the end repeats an epoch, or measures
            # Tune counts iterations itself, and wrongly after a restart, unless it is told
            tune.report({**event.metrics, "training_iteration": event.metrics["epoch"]})
            seen = event.metrics["epoch"]
