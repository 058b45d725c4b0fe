"""Every private name of Ray that this package uses: the one file to check after an upgrade."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ray
from ray.train.torch.config import (
    _set_torch_distributed_env_vars as set_torch_distributed_env_vars,
)
from ray.train.torch.config import _setup_torch_process_group as setup_torch_process_group
from ray.train.torch.config import _TorchBackend as TorchBackend

__all__ = [
    "TorchBackend",
    "log_directory",
    "raylet_output_to_log",
    "set_torch_distributed_env_vars",
    "setup_torch_process_group",
]

_log = logging.getLogger(__name__)


def log_directory() -> Path:
    """Return the directory of Ray's log files on this node."""
    node: Any = ray._private.worker._global_node
    return Path(node.get_logs_dir_path())


def raylet_output_to_log() -> None:
    """Send the raylet's output (such as a warning about many processes) to our log, not to stdout.

    No option of `ray.init` controls these lines, and stdout is for the report and for --json.
    """
    ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: _log.info(
        "raylet: %s", data["lines"]
    )
