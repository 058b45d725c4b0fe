"""Environment variables that Ray reads at import: call `prepare` before `import ray`. No ray.

On one machine every socket stays on loopback. Ray rewrites 127.0.0.1 to the address of the host and
listens on all interfaces, unless a variable says that the cluster has one node only.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import MutableMapping

# A worker group waits START_TRIES times, START_S seconds each, for the capacity that it needs.
START_S = 120
START_TRIES = 4

# Settings for output, safety and speed. A value that the user has set already is kept.
_ALWAYS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(START_S),
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # we handle Ctrl-C, which ends with exit code 130
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports no score
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
THREAD_NAME = "attnfd-ray-group"
LOOPBACK = "127.0.0.1"  # the address of every node when Ray stays on this machine
_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# One machine gets no preemption notice and its metrics are not scraped: fewer processes to start.
_LOCAL = {
    _SWITCH: "0",
    "RAY_AUTH_MODE": "token",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # our workers need another environment, so prestarted ones would stay idle
    "RAY_prestart_worker_first_driver": "0",
}


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables that Ray reads when it is imported, without changing those set already."""
    assert "ray" not in sys.modules or environ is not os.environ, (
        "call prepare() before `import ray`"
    )
    for name, value in _ALWAYS.items():
        environ.setdefault(name, value)
    if not cluster_address(environ):
        environ.update(_LOCAL)


def ray_in_use() -> bool:
    """Return whether one of our threads still calls Ray, which then must not be shut down.

    A process that calls Ray after `ray.shutdown()` is ended by Ray, with an exit code of Ray's own.
    Such a process must end with `os._exit`; everything that Ray started ends with it.
    """
    return any(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate())


def on_loopback(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Return whether Ray stays on this machine.

    True if this process starts Ray, or if the head was started with the same variable set.
    """
    return environ.get(_SWITCH) == "0"


def cluster_address(environ: MutableMapping[str, str] = os.environ) -> str | None:
    """Return the address of the cluster to join, or None to start Ray on this machine.

    Inside a Ray job, Ray itself sets the address.
    """
    address = environ.get("RAY_ADDRESS")
    if address in (None, "", "local"):
        return None
    return address
