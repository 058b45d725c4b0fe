"""Long-lived worker groups: one Ray Train run each, that does job after job until the broker sends
it home.

Ray's documented way starts a new TorchTrainer for every trial; a group that stays pays for its
processes once.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from attnfd_ray.runtime.cluster.capacity import GroupShape
from attnfd_ray.runtime.cluster.environment import START_S, START_TRIES, THREAD_NAME
from attnfd_ray.runtime.cluster.loopback import LoopbackConfig, LoopbackTrainer
from attnfd_ray.runtime.cluster.nodes import alive, place_of_logs
from attnfd_ray.runtime.jobs.broker import Broker
from attnfd_ray.runtime.jobs.messages import Event, Job

# Ranks above 0 wait in a broadcast while rank 0 waits for work: often enough to stay far from its
# time-out.
_PATIENCE_S = 20.0
_TELLING_S = 10.0  # to tell the broker that a step hangs
_WORTH_ANOTHER_S = (
    2.0 * START_S * START_TRIES
)  # a group that lived longer had more than its room to wait for
# of one group: the broker gives up a job that keeps killing it, so only the sum is unbounded
_MAX_REBUILDS = 1000


def worker_loop(config: dict[str, Any]) -> None:
    """Run in every process of a group: take jobs and do them."""
    # torch and what stands on it are imported here, in the worker, so that the driver need not
    from attnfd_ray.runtime.jobs.worker import GroupMustRestart, Worker
    from attnfd_ray.train.distributed import all_gather_object, broadcast_object, rank

    group: int = config["group"]
    broker = ray.get_actor(config["broker"], namespace=config["namespace"])

    def push(job: Job, event: Event) -> str | None:
        try:
            reason: Any = ray.get(broker.push.remote(group, job.trial_id, event))
        except ray.exceptions.RayError as error:
            # the driver is gone and took the broker along: the job is not at fault
            raise GroupMustRestart("nobody listens any more") from error
        return None if reason is None else str(reason)

    def late(job: Job, text: str, step_s: float) -> None:
        with contextlib.suppress(ray.exceptions.RayError):  # unheard it is a worker lost
            ray.get(
                broker.report_hang.remote(group, job.trial_id, text, step_s=step_s),
                timeout=_TELLING_S,
            )

    nodes = dict(all_gather_object((ray.get_runtime_context().get_node_id(), place_of_logs())))
    with contextlib.closing(Worker(ray.train.torch.get_device(), push, late)) as worker:
        while True:
            job: Any = None
            if rank() == 0:
                job = ray.get(broker.take.remote(group, nodes=nodes, patience_s=_PATIENCE_S))
            job = broadcast_object(job)
            if job == "over":
                return
            if isinstance(job, Job):
                worker.do(job)


class WorkerGroups:
    """The worker groups of one command and the broker that serves them; `close` ends them all."""

    def __init__(
        self, shape: GroupShape, *, count: int, name: str, storage: Path, verbose: bool, local: bool
    ) -> None:
        self.shape, self.count, self.name, self.storage = shape, count, name, storage
        self.verbose, self.local = verbose, local
        self.namespace = ray.get_runtime_context().namespace
        actor: Any = ray.remote(Broker)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.broker = actor.options(
            name=name,
            namespace=self.namespace,
            num_cpus=0,
            max_concurrency=1000,
            scheduling_strategy=here,
        ).remote(count, alive)
        self._closing = False
        self._threads = [
            threading.Thread(
                target=self._run, args=(index,), name=f"{THREAD_NAME}-{index}", daemon=True
            )
            for index in range(count)
        ]
        for thread in self._threads:
            thread.start()
        try:
            # a client waits here and not in a call to a dead actor
            ray.get(self.broker.broken.remote())
        except BaseException:  # Ctrl-C too: nobody else ends what was never entered
            self.close(patience_s=5.0)
            raise

    def __enter__(self) -> WorkerGroups:
        return self

    def interrupt(self) -> None:
        """Have every job end after the epoch it is in, and no other begin."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self.broker.interrupt.remote())

    def __exit__(self, kind: object, *_: object) -> None:
        # after an error or Ctrl-C nobody waits for an epoch to end: those that did are on the disk
        self.close(patience_s=5.0 if kind else 20.0)

    def close(self, *, patience_s: float) -> None:
        """Send the groups home and wait a moment; what is still busy then ends with the driver."""
        deadline = time.monotonic() + patience_s
        self._closing = True
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self.broker.close.remote())
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, index: int) -> None:
        """Keep a group until it is sent home, or cannot be had."""
        for number in itertools.count():
            began_s = time.monotonic()
            reason = self._run_trainer(index, f"group-{index}-{number}")
            if (
                reason is None or self._closing
            ):  # later Ray may be shut down, and ends a process that still calls it
                return
            # Ray counts over a group's whole life how often it had to wait for room: one that has
            # worked gets another
            if time.monotonic() - began_s < _WORTH_ANOTHER_S:
                break
        with contextlib.suppress(
            ray.exceptions.RayActorError
        ):  # whoever asks the broker hears that it is gone
            ray.get(
                self.broker.lost.remote(index, f"worker group {index} could not go on: {reason}")
            )

    def _run_trainer(self, index: int, name: str) -> str | None:
        """Run a group to its end; return why it could not go on, None where it was sent home."""
        try:
            kind = LoopbackTrainer if self.local else ray.train.torch.TorchTrainer
            trainer = kind(
                worker_loop,
                torch_config=LoopbackConfig(directory=str(self.storage)) if self.local else None,
                train_loop_config={
                    "group": index,
                    "broker": self.name,
                    "namespace": self.namespace,
                },
                scaling_config=ray.train.ScalingConfig(
                    num_workers=self.shape.workers,
                    use_gpu=self.shape.gpus_per_worker > 0,
                    resources_per_worker=self.shape.resources(),
                ),
                run_config=ray.train.RunConfig(
                    name=name,
                    storage_path=str(self.storage),
                    failure_config=ray.train.FailureConfig(
                        max_failures=_MAX_REBUILDS, controller_failure_limit=START_TRIES - 1
                    ),
                    logging_config=ray.train.LoggingConfig(
                        log_level="INFO" if self.verbose else "CRITICAL"
                    ),
                ),
            )
            trainer.fit()
        except Exception as error:  # noqa: BLE001 - reported to every client that waits for this group
            return (
                str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            )
        return None
