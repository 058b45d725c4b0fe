"""A tiny experiment on generated images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, write

from attnfd_ray.config.loader import load_experiment
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.generate.toyscenes import write_toyscenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_toyscenes(root, size=32, train=24, val=6, seed=0, noise=0.0)
    return root


@pytest.fixture
def tree(scenes: Path, tmp_path: Path) -> dict[str, Any]:
    """Return the content of the experiment's file; a test changes what it needs."""
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


@pytest.fixture
def attnfd_ray(tmp_path: Path) -> Iterator[CommandLine]:
    line = CommandLine(tmp_path)
    yield line
    line.close()
