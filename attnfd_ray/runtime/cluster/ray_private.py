"""The private names of Ray that this package uses, but for those that need torch.

`ray_private_train.py` has the others. An upgrade of Ray has these two files to check.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ray

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
