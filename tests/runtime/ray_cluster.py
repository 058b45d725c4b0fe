"""A Ray cluster of several nodes on this machine, on loopback; each node can be killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

from processes import descendants, wait_until

# With the variable that keeps Ray on loopback, `ray start` refuses to add a second node.
_START = """
import types
from ray.scripts import scripts

scripts.ray_constants = types.SimpleNamespace(
    **{**vars(scripts.ray_constants), "ENABLE_RAY_CLUSTER": True}
)
scripts.main()
"""
_STARTED = "This command will now block forever"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything below it."""
    family = descendants(process.pid)
    process.kill()
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(timeout=30)


class RayCluster:
    """A head without CPUs, where drivers run, and nodes of one CPU each."""

    def __init__(self, directory: Path, *, nodes: int) -> None:
        self._directory = directory
        directory.mkdir(parents=True)
        token = directory / "token"
        token.write_text(secrets.token_hex(32), encoding="utf-8")
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = {
            "RAY_ADDRESS": self.address,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._num_started = 0
        self.nodes: list[subprocess.Popen[bytes]] = []
        port = self.address.rpartition(":")[2]
        client = f"--ray-client-server-port={free_port()}"
        self.head = self._start(
            "--head", f"--port={port}", client, "--include-dashboard=false", "--num-cpus=0"
        )
        for _ in range(nodes):
            self.add_node()

    def add_node(self) -> None:
        """Start another node, and wait until it is part of the cluster."""
        self.nodes.append(self._start(f"--address={self.address}", "--num-cpus=1"))

    def kill_node(self, node: subprocess.Popen[bytes]) -> None:
        """Kill a node and all its processes at once, like a power failure."""
        end(node)
        self.nodes.remove(node)

    def close(self) -> None:
        for process in [*self.nodes, self.head]:
            end(process)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = self._directory / f"node-{self._num_started}.log"
        self._num_started += 1
        command = [
            sys.executable,
            "-c",
            _START,
            "start",
            "--block",
            "--node-ip-address=127.0.0.1",
            *arguments,
        ]
        with log.open("w") as file:
            process = subprocess.Popen(
                command,
                env={**os.environ, **self.environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(f"{log}", lambda: _STARTED in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        return process
