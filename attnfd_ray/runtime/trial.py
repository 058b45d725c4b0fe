"""The trial that Ray Tune runs: a thin shell that hands its job to a worker group and reports what it hears.

Kept free of torch: its process starts in a second, and `reuse_actors` lets one process serve every trial of a slot.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from attnfd_ray.runtime.jobs import Event
from attnfd_ray.search.objectives import measures

# Tune wants a bundle that asks for something; a processor's share would never be free beside groups that take them all.
RESOURCES = {"memory": 1.0}


def trial(config: dict[str, Any]) -> None:
    """Report each epoch's metrics to Tune until the job is over; a failed job is reported, not raised.

    It never cancels its job: the driver does, when it decides to. So a shell that dies and is tried again finds its
    job where it was.
    """
    broker = ray.get_actor(config["broker"], namespace=config["namespace"])
    job, seen, over = config["job"], 0, False
    ray.get(broker.submit.remote(job))
    while not over:
        event: Event = ray.get(broker.pull.remote(job.trial_id, seen=seen))
        over = event.kind != "epoch"
        if event.kind == "failed":
            tune.report({"failure_kind": event.failure_kind, "failure_text": event.failure_text})
        elif event.metrics["epoch"] > seen or measures(event.metrics):
            # Tune counts iterations itself, and wrongly after a restart, unless it is told
            tune.report({**event.metrics, "training_iteration": event.metrics["epoch"]})
            seen = event.metrics["epoch"]
