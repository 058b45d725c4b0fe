"""Joins a Ray cluster, or starts Ray on this machine for the duration of a command."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from attnfd_ray.errors import CapacityError
from attnfd_ray.runtime.cluster import ray_private
from attnfd_ray.runtime.cluster.environment import cluster_address, ray_in_use


@contextmanager
def connected(*, verbose: bool = False) -> Iterator[None]:
    """Join the cluster, or start Ray on this machine and stop it at the end.

    Raises CapacityError if no cluster answers at RAY_ADDRESS. Never calls a bare `ray.init()`: that
    would join a cluster named in a file which an earlier Ray has left.
    """
    level = _set_log_level(verbose=verbose)
    our_handler = signal.getsignal(signal.SIGTERM)
    address = cluster_address()
    try:
        if address:
            ray.init(address=address, log_to_driver=verbose, logging_level=level)
        else:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=verbose,
                logging_level=level,
            )
    except (ConnectionError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CapacityError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there: {reason}"
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, our_handler)  # Ray's handler would print a stack trace
    try:
        yield
    finally:
        if not ray_in_use():
            ray.shutdown()


def _set_log_level(*, verbose: bool) -> int:
    """Set and return the log level of Ray in this process."""
    level = logging.ERROR
    if verbose:
        level = logging.INFO
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(level)
    if not verbose:
        # Tune's own state is never read again, so it does not matter if it cannot be written
        logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
        ray_private.raylet_output_to_log()
    return level
