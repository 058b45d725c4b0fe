"""Long-lived worker groups: one Ray Train run each, running job after job until the broker closes.

Ray's documented pattern starts a new TorchTrainer for every trial. A group that stays pays for the
start of its processes once.
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
from attnfd_ray.runtime.cluster.nodes import alive, log_location
from attnfd_ray.runtime.jobs.broker import Broker
from attnfd_ray.runtime.jobs.messages import Event, Job

# While rank 0 waits for a job, the other ranks wait in a broadcast: far below its timeout.
_TAKE_TIMEOUT_S = 20.0
_REPORT_HANG_TIMEOUT_S = 10.0
# A group that lived longer than this did more than wait for the capacity to start.
_MIN_LIFE_S = 2.0 * START_S * START_TRIES
# Per group. The broker gives up a job that keeps killing its group, so this need not be low.
_MAX_REBUILDS = 1000
_CLOSE_TIMEOUT_S = 20.0
_CLOSE_AFTER_ERROR_TIMEOUT_S = 5.0


def worker_loop(config: dict[str, Any]) -> None:
    """Run in every process of a group: take jobs and run them."""
    # imported in the worker, so that the driver does not load torch
    from attnfd_ray.runtime.jobs.worker import GroupMustRestart, Worker
    from attnfd_ray.train.distributed import all_gather_object, broadcast_object, rank

    group: int = config["group"]
    broker = ray.get_actor(config["broker"], namespace=config["namespace"])

    def push(job: Job, event: Event) -> str | None:
        try:
            answer: Any = ray.get(broker.push.remote(group, job.trial_id, event))
        except ray.exceptions.RayError as error:
            # the driver is gone and the broker with it: not a failure of the job
            raise GroupMustRestart("the broker process is gone") from error
        reason: str | None = answer
        return reason

    def report_hang(job: Job, text: str, step_s: float) -> None:
        with contextlib.suppress(ray.exceptions.RayError):  # then it counts as a lost worker
            ray.get(
                broker.report_hang.remote(group, job.trial_id, text, step_s=step_s),
                timeout=_REPORT_HANG_TIMEOUT_S,
            )

    logs = dict(all_gather_object((ray.get_runtime_context().get_node_id(), log_location())))
    device = ray.train.torch.get_device()
    with contextlib.closing(Worker(device, push, report_hang)) as worker:
        while True:
            job: Any = None
            if rank() == 0:
                job = ray.get(broker.take.remote(group, logs=logs, timeout_s=_TAKE_TIMEOUT_S))
            job = broadcast_object(job)
            if job == "over":
                return
            if isinstance(job, Job):
                worker.do(job)


class WorkerGroups:
    """The worker groups of one command and their broker; `close` ends them all.

    `local` is whether all nodes are this machine; `storage` is a directory for Ray's own files,
    which every node sees.
    """

    def __init__(
        self, shape: GroupShape, *, count: int, name: str, storage: Path, verbose: bool, local: bool
    ) -> None:
        self.shape = shape
        self.count = count
        self.name = name
        self.storage = storage
        self.verbose = verbose
        self.local = local
        self.namespace = ray.get_runtime_context().namespace
        self.broker = self._start_broker()
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
            # wait for the broker process here, so that no client calls it before it has started
            ray.get(self.broker.broken.remote())
        except BaseException:  # Ctrl-C too: __exit__ is not called for what was never entered
            self.close(timeout_s=_CLOSE_AFTER_ERROR_TIMEOUT_S)
            raise

    def _start_broker(self) -> Any:
        """Start the broker as an actor on the driver's node, and return its handle."""
        actor: Any = ray.remote(Broker)
        this_node = ray.get_runtime_context().get_node_id()
        return actor.options(
            name=self.name,
            namespace=self.namespace,
            num_cpus=0,
            max_concurrency=1000,
            scheduling_strategy=NodeAffinitySchedulingStrategy(this_node, soft=False),
        ).remote(self.count, alive)

    def __enter__(self) -> WorkerGroups:
        return self

    def interrupt(self) -> None:
        """Have every job end after its running epoch, and no other start."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self.broker.interrupt.remote())

    def __exit__(self, error_type: object, *_: object) -> None:
        timeout_s = _CLOSE_TIMEOUT_S
        if error_type:  # Ctrl-C too: finished epochs are saved, running ones are lost
            timeout_s = _CLOSE_AFTER_ERROR_TIMEOUT_S
        self.close(timeout_s=timeout_s)

    def close(self, *, timeout_s: float) -> None:
        """Have the groups end, and wait; those still busy after that end with the driver."""
        deadline = time.monotonic() + timeout_s
        self._closing = True
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self.broker.close.remote())
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, index: int) -> None:
        """Run a group until the broker closes; report to the broker if it cannot continue."""
        reason: str | None = None
        for number in itertools.count():
            start_s = time.monotonic()
            reason = self._run_trainer(index, f"group-{index}-{number}")
            # after closing, Ray may be shut down, and then it ends a process that calls it
            if reason is None or self._closing:
                return
            # Ray counts over the whole life of a group how often it waited for capacity: a group
            # that did more than wait is started anew
            if time.monotonic() - start_s < _MIN_LIFE_S:
                break
        text = f"worker group {index} could not continue: {reason}"
        with contextlib.suppress(ray.exceptions.RayActorError):  # clients get this error too
            ray.get(self.broker.report_loss.remote(index, text))

    def _run_trainer(self, index: int, name: str) -> str | None:
        """Run a group to its end; return why it could not continue, None if the broker closed."""
        try:
            self._trainer(index, name).fit()
        except Exception as error:  # noqa: BLE001 - every client that waits for the group gets it
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return lines[-1]
        return None

    def _trainer(self, index: int, name: str) -> Any:
        """Return the Ray Train run of a group."""
        trainer_class = ray.train.torch.TorchTrainer
        torch_config = None
        if self.local:
            trainer_class = LoopbackTrainer
            torch_config = LoopbackConfig(directory=str(self.storage))
        log_level = "CRITICAL"
        if self.verbose:
            log_level = "INFO"
        return trainer_class(
            worker_loop,
            torch_config=torch_config,
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
                logging_config=ray.train.LoggingConfig(log_level=log_level),
            ),
        )
