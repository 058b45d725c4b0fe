"""Runs the command line as a user does, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

TIMEOUT_S = 420  # on two busy cores: 20 to 60 s, for the grid of all methods some minutes


def write(tree: dict[str, Any], directory: Path) -> Path:
    path = directory / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


class CommandLine:
    """`attnfd-ray ...` in a directory of its own; `close` ends every process it has started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        """Start it; a PYTHONPATH given here is put before that of the tests."""
        if "PYTHONPATH" in environment:
            inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
            environment["PYTHONPATH"] = os.pathsep.join(
                filter(None, [environment["PYTHONPATH"], *inherited])
            )
        process = subprocess.Popen(
            [sys.executable, "-m", "attnfd_ray", *map(str, arguments)],
            cwd=self.directory,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def __call__(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=TIMEOUT_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=TIMEOUT_S)
