"""The trial that Ray Tune runs: it submits its job to the worker groups and reports the events.

No torch: its process starts in a second, and with `reuse_actors` one process serves all trials of a
slot.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from attnfd_ray.runtime.jobs.client import events
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.search.objectives import measured_metrics
from attnfd_ray.terms import FailureKind

_AMOUNT = 0.0001  # of a resource that a node has one of, and that nothing else uses
_HEAD = "node:__internal_head__"


def resources() -> dict[str, float]:
    """Return the resources of a trial process, which bind it to the driver's node.

    So it is not lost with another node. It asks for no CPU: the worker groups may use all of them.
    """
    this_node = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    node = next(node for node in nodes if node["NodeID"] == this_node)
    # in a test or a container, several nodes may have one address; only one node is the head
    if _HEAD in node["Resources"]:
        return {_HEAD: _AMOUNT}
    return {f"node:{node['NodeManagerAddress']}": _AMOUNT}


def trial(config: dict[str, Any]) -> None:
    """Report each epoch's metrics to Tune until the job has ended, and a failure too.

    The trial never cancels its job; the driver does. So if this process dies and is started again,
    the job is still with the broker.
    """
    broker_gone = {
        "failure_kind": FailureKind.WORKER_LOST,
        "failure_text": "the broker process is gone",
    }
    try:
        broker = ray.get_actor(config["broker"], namespace=config["namespace"])
    except ValueError:  # of Ray, for an actor that has ended
        tune.report(broker_gone)
        return
    try:
        _follow(config["job"], broker)
    except ray.exceptions.RayActorError:
        tune.report(broker_gone)


def _follow(job: Job, broker: Any) -> None:
    last_epoch = 0
    for event in events(broker, job):
        if event.kind == "failed":
            tune.report({"failure_kind": event.failure_kind, "failure_text": event.failure_text})
            return
        epoch = event.metrics["epoch"]
        # the last event repeats the last epoch, and is reported only if it adds measured metrics
        if epoch > last_epoch or measured_metrics(event.metrics):
            # Tune's own count of iterations is wrong after a restart
            tune.report({**event.metrics, "training_iteration": epoch})
            last_epoch = epoch
