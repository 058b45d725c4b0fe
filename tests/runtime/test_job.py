"""The guide's `ray job submit` (docs/cluster.md), against a head on loopback that wants a token."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import descendants, listening, wait_until
from ray_cluster import free_port

from attnfd_ray.data.generate.toyscenes import write_toyscenes
from attnfd_ray.store.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    scenes = tmp_path / "scenes"
    write_toyscenes(scenes, size=32, train=24, val=6, seed=0, noise=0.0)
    ours = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOYSCENES_ROOT": str(scenes),
        "ATTNFD_STORE": str(tmp_path / "results"),
        "PATH": f"{RAY.parent}:{os.environ['PATH']}",
    }
    return {**os.environ, **ours}


@pytest.fixture
def head(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Start a head as in the README; in the foreground, so that all its processes can be ended."""
    dashboard = free_port()
    with (tmp_path / "head.log").open("w") as log:
        ports = [
            f"--port={free_port()}",
            f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={free_port()}",
        ]
        # the agent of a Ray that has just ended may hold the default port
        ports += [f"--dashboard-agent-listen-port={free_port()}"]
        process = subprocess.Popen(
            [
                RAY,
                "start",
                "--head",
                "--block",
                "--num-cpus=2",
                "--dashboard-host=127.0.0.1",
                *ports,
            ],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until("the dashboard", lambda: _answers(dashboard) or process.poll() is not None)
            assert process.poll() is None, (tmp_path / "head.log").read_text()
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            family = descendants(process.pid)
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_submitted_job_succeeds_and_its_rows_are_in_the_store(
    head: str, environment: dict[str, str], tmp_path: Path
) -> None:
    short = [
        "--set",
        "train.epochs=2",
        "--set",
        "teacher.train.epochs=1",
        "--set",
        "data.crop=[32, 32]",
    ]
    submit = [RAY, "job", "submit", "--address", head, "--working-dir", ".", "--"]
    # on a busy machine, the head accepts jobs some seconds before its agent can start them
    for _ in range(10):
        done = subprocess.run(
            [*submit, "attnfd-ray", "train", "search_spaces/demo.yaml", *short],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        if "No available agent" not in done.stdout + done.stderr:
            break
        time.sleep(3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    store = Store.open(tmp_path / "results", create=False)
    states = {row["role"]: row["state"] for row in store.trials().to_pylist()}
    assert states == {"teacher": "COMPLETE", "run": "COMPLETE"}
    assert [row["epoch"] for row in store.epochs("demo.train1").to_pylist()] == [1, 2]

    sockets = listening(
        {
            int(process.name)
            for process in Path("/proc").glob("[0-9]*")
            if _has(process, environment)
        }
    )
    assert len(sockets) >= 5
    assert all(
        address.startswith(("127.0.0.1:", "[::1]:", "[::ffff:127.0.0.1]:")) for address in sockets
    ), sockets


def _has(process: Path, environment: dict[str, str]) -> bool:
    """Return whether a process has this test's token in its environment."""
    try:
        return environment["RAY_AUTH_TOKEN_PATH"].encode() in (process / "environ").read_bytes()
    except OSError:
        return False
