"""A process group that opens nothing to the network, for worker groups on one machine.

torch's TCPStore, which Ray Train meets in, listens on every interface whatever address it is given.
On one machine the workers meet in a file instead, and gloo and NCCL are told to talk over loopback.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig, TorchTrainer

from attnfd_ray.runtime.cluster import ray_private

_FOR_CLUSTERS = ("PlacementGroupCleanerCallback", "DatasetsCallback")


def _talk_over_loopback() -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"


class _LoopbackBackend(ray_private.TorchBackend):
    """Ray's backend but for the place where the workers meet."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        worker_group.execute(ray_private.set_torch_distributed_env_vars)
        worker_group.execute(_talk_over_loopback)
        # a new file each time: what a group that died has left in one would be taken for an answer
        Path(backend_config.directory).mkdir(parents=True, exist_ok=True)
        meeting = Path(backend_config.directory) / f"meeting-{uuid.uuid4().hex}"
        waiting = [
            worker_group.execute_single_async(
                rank,
                ray_private.setup_torch_process_group,
                backend=backend_config.backend or ("nccl" if gpus else "gloo"),
                world_rank=rank,
                world_size=len(worker_group),
                init_method=meeting.as_uri(),
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        ray.get(waiting)


@dataclass
class LoopbackConfig(TorchConfig):
    """`TorchTrainer(torch_config=LoopbackConfig(directory=...))`; only where every worker is on
    this machine.
    """

    directory: str = ""

    @property
    def backend_cls(self) -> type[ray_private.TorchBackend]:
        return _LoopbackBackend


class LoopbackTrainer(TorchTrainer):
    """A TorchTrainer without what helps on a cluster only and costs seconds and processes here.

    Its placement group cleaner asks a dashboard that a local Ray has not, and holds up the end for
    twelve seconds; its dataset manager serves Ray Data, which nobody reads.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if type(callback).__name__ not in _FOR_CLUSTERS]
