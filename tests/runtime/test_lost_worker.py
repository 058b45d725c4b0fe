"""The death of a worker is recognised by an error of the one that is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attnfd_ray.runtime.jobs.failures import is_lost_worker

SURVIVOR = """
import os, signal, sys
import torch, torch.distributed as dist
from attnfd_ray.runtime.jobs.failures import is_lost_worker
from attnfd_ray.train.distributed import all_reduce_sum, broadcast_object

rank, meeting = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
broadcast_object(None)  # so that they are connected
if rank == 0:
    os.kill(os.getpid(), signal.SIGKILL)
for collective in (lambda: broadcast_object(None), lambda: all_reduce_sum(torch.ones(1))):
    try:
        collective()
    except Exception as error:
        print(is_lost_worker(error))
"""


@pytest.mark.slow
def test_a_collective_without_its_peer_is_recognised(tmp_path: Path) -> None:
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    dies, survives = (
        subprocess.Popen(
            [sys.executable, "-c", SURVIVOR, str(rank), str(tmp_path / "meeting")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    )
    assert survives.communicate(timeout=60)[0].split() == ["True"] * 2
    dies.communicate(timeout=60)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:15526"), True),
        (RuntimeError("Connection reset by peer"), True),
        (RuntimeError("Timed out waiting 1800000ms for recv operation to complete"), True),
        (torch.distributed.DistBackendError("NCCL error"), True),
        (RuntimeError("shape '[2, 3]' is invalid for input of size 5"), False),
        (torch.OutOfMemoryError("CUDA out of memory while the connection reset"), False),
        (ValueError("Connection reset by peer"), False),
    ],
)
def test_among_several_workers_a_broken_connection_is_recognised(
    error: Exception, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnfd_ray.runtime.jobs.failures.world_size", lambda: 2)
    with pytest.raises(type(error)) as caught:
        raise error
    assert is_lost_worker(caught.value) == lost


def test_an_error_of_a_run_with_one_worker_is_its_own() -> None:
    assert not is_lost_worker(RuntimeError("gloo/transport/tcp/pair.cc: Connection closed by peer"))
