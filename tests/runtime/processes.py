"""Processes and sockets as seen from outside, with bounded waits. Linux only, as its tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(what: str, holds: Callable[[], object], *, timeout_s: float = 120) -> None:
    """Wait until `holds()` is true; fail with `what` after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.05)


def descendants(pid: int) -> dict[int, str]:
    """Return pid -> command line of every process below `pid`."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = {}
    waiting = [pid]
    while waiting:
        for child in parents.get(waiting.pop(), ()):
            waiting.append(child)
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                found[child] = b" ".join(words).decode().strip()
    return found


def listening(pids: set[int]) -> list[str]:
    """Return the local addresses that these processes listen on."""
    lines = subprocess.run(
        ["ss", "-Hltnp"], capture_output=True, text=True, check=True, timeout=30
    ).stdout.splitlines()
    return [line.split()[3] for line in lines if any(f"pid={pid}," in line for pid in pids)]


def _is_agent(command: list[str]) -> bool:
    """Return whether a process is one of Ray's agents, by its name or its program."""
    return (command[0].startswith("ray::") and command[0].endswith("Agent")) or any(
        word.endswith(("dashboard/agent.py", "runtime_env/agent/main.py")) for word in command[:4]
    )


def kill_driver(driver: int) -> dict[int, str]:
    """Kill a driver, wait until its Ray has ended, and return pid -> command line of all of it.

    Ray's two agents end only after a minute; they hold nothing, and are killed here.
    """
    family = descendants(driver)
    os.kill(driver, signal.SIGKILL)
    agents = [pid for pid, command in family.items() if _is_agent(command.split())]
    others = [pid for pid in family if pid not in agents]
    wait_until(
        "Ray to end with its driver",
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in others),
    )
    for pid in agents:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return family
