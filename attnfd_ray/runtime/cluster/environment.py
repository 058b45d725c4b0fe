"""What has to be in the environment before ray is imported. Must not import ray, and neither may
its caller before.

On one machine every socket stays on loopback: Ray rewrites 127.0.0.1 to the host's address and
listens on all interfaces unless it is told that it runs where only one node can be.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import MutableMapping

# How long a worker group that is lost waits for room, and how often, before its command ends.
START_S, START_TRIES = 120, 4

# Silence, speed and safety of Ray itself; a user who set one of these has a reason to.
_ALWAYS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(START_S),
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: it ends with exit code 130
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports why, and no score
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
THREAD_NAME = "attnfd-ray-group"
LOOPBACK = "127.0.0.1"  # the address of every node of a Ray that keeps to this machine
_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# One machine is not taken away with a notice, and nobody scrapes its metrics: fewer processes to
# start.
_LOCAL = {
    _SWITCH: "0",
    "RAY_AUTH_MODE": "token",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",  # ours want an environment of their own, so those stay idle
}


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what Ray reads when it is imported, leaving alone what is set already."""
    assert "ray" not in sys.modules or environ is not os.environ, (
        "prepare() comes before `import ray`"
    )
    for name, value in _ALWAYS.items():
        environ.setdefault(name, value)
    if not cluster_address(environ):
        environ.update(_LOCAL)


def ray_in_use() -> bool:
    """Return whether a thread of ours still talks to Ray, which then must not be shut down.

    Ray ends a process that calls it after a shutdown, with an exit code of its own. Such a process
    had better leave by `os._exit`: what Ray started goes when it is gone.
    """
    return any(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate())


def on_loopback(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Return whether Ray keeps to this machine: started by us, or a head that was started with the
    same switch.
    """
    return environ.get(_SWITCH) == "0"


def cluster_address(environ: MutableMapping[str, str] = os.environ) -> str | None:
    """Return the address of the cluster to join, or None to start Ray on this machine; a Ray job
    has one.
    """
    address = environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address
