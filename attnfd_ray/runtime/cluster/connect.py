"""Joining a Ray cluster, or starting Ray on this machine for the length of a command."""

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
    """Join the cluster, or start Ray here; what was started here is stopped again.

    Never a bare `ray.init()`: that would try to join whatever cluster a file of an earlier one
    names.
    """
    address = cluster_address()
    level = logging.INFO if verbose else logging.ERROR
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(level)
    if not verbose:
        # nothing of Tune's own state is ever read again; that the disk refuses it is told by what
        # does matter
        logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
        ray_private.raylet_output_to_log()
    ours = signal.getsignal(signal.SIGTERM)
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
        signal.signal(signal.SIGTERM, ours)  # Ray's own would print a stack of its core
    try:
        yield
    finally:
        if not ray_in_use():
            ray.shutdown()
