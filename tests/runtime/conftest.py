"""A tiny experiment on generated scenes, and the command line run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from attnfd_ray.config.loader import load_experiment
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.toyscenes import write_toyscenes

PATIENCE_S = 240  # a command on two busy cores takes 20 to 60 s


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_toyscenes(root, size=32, train=24, val=6, seed=0, noise=0.0)
    return root


@pytest.fixture
def tree(scenes: Path, tmp_path: Path) -> dict[str, Any]:
    """Return the experiment as a file would say it; a test changes what it is about."""
    small = {"backbone": "resnet18", "width": 0.125}
    return {
        "experiment": "tiny",
        "data": {"name": "toyscenes", "root": str(scenes), "crop": [32, 32]},
        "teacher": {**small, "train": {"epochs": 1, "lr": 0.05}},
        "student": small,
        "method": {"name": "attnfd", "layers": ["stage4"], "reduction_ratio": 4},
        "optim": {"lr": 0.02},
        "train": {"epochs": 4, "batch_size": 8},
        "store": str(tmp_path / "results"),
    }


@pytest.fixture
def settings(tree: dict[str, Any], tmp_path: Path) -> Callable[[], ExperimentSettings]:
    return lambda: load_experiment(write(tree, tmp_path))


def write(tree: dict[str, Any], directory: Path) -> Path:
    path = directory / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


class CommandLine:
    """`attnfd-ray ...` in a directory of its own; every process it starts is ended with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
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
        out, err = process.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def attnfd_ray(tmp_path: Path) -> Iterator[CommandLine]:
    line = CommandLine(tmp_path)
    yield line
    line.close()
