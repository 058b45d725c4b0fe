"""A process group without network sockets, for worker groups on one machine.

Ray Train sets up the process group with torch's TCPStore, which listens on every interface,
whatever address it is given. On one machine the workers meet through a file instead, and gloo and
NCCL use the loopback interface.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig, TorchTrainer

from attnfd_ray.runtime.cluster import ray_private_train

_CLUSTER_CALLBACKS = ("PlacementGroupCleanerCallback", "DatasetsCallback")


def _use_loopback_interface() -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    os.environ["NCCL_SOCKET_IFNAME"] = "lo"


class _LoopbackBackend(ray_private_train.TorchBackend):
    """Ray's torch backend, with a file as the init method of the process group."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        backend = backend_config.backend or "gloo"
        has_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        if has_gpus and not backend_config.backend:
            backend = "nccl"
        worker_group.execute(ray_private_train.set_torch_distributed_env_vars)
        worker_group.execute(_use_loopback_interface)
        # a new file each time: the file of a group that died has the state of that group
        Path(backend_config.directory).mkdir(parents=True, exist_ok=True)
        meeting = Path(backend_config.directory) / f"meeting-{uuid.uuid4().hex}"
        pending = [
            worker_group.execute_single_async(
                rank,
                ray_private_train.setup_torch_process_group,
                backend=backend,
                world_rank=rank,
                world_size=len(worker_group),
                init_method=meeting.as_uri(),
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        ray.get(pending)


@dataclass
class LoopbackConfig(TorchConfig):
    """A `torch_config` for a TorchTrainer whose workers are all on this machine.

    `directory` is where the workers put the file through which they meet.
    """

    directory: str = ""

    @property
    def backend_cls(self) -> type[ray_private_train.TorchBackend]:
        return _LoopbackBackend


class LoopbackTrainer(TorchTrainer):
    """A TorchTrainer without the callbacks that only a cluster needs.

    The placement group cleaner asks a dashboard, which a local Ray does not have, and delays the
    end by twelve seconds. The dataset manager serves Ray Data, which this package does not use.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [
            callback for callback in callbacks if type(callback).__name__ not in _CLUSTER_CALLBACKS
        ]
