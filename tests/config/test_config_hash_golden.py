"""Every shipped experiment keeps its identity, so that searches of earlier versions can resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnfd_ray.config.loader import load_experiment
from attnfd_ray.config.overrides import baseline_of, config_hash, teacher_experiment
from attnfd_ray.config.schema import ExperimentSettings

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "config_hashes.json"
EXPECTED: dict[str, dict[str, str]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
ENVIRONMENT = {
    "ATTNFD_STORE": "/store",
    "CAMVID_ROOT": "/data/CamVid",
    "TEACHER": "/data/teacher.safetensors",
    "TOYSCENES_ROOT": "/data/toyscenes",
    "VOC_ROOT": "/data/VOC",
}


def hashes(settings: ExperimentSettings) -> dict[str, str]:
    found = {"file": config_hash(settings)}
    if (baseline := baseline_of(settings)) is not None:
        found["baseline"] = config_hash(baseline)
    if settings.teacher is not None and settings.teacher.train is not None:
        found["teacher"] = config_hash(teacher_experiment(settings))
    return found


def test_the_golden_file_knows_experiments_of_each_kind() -> None:
    assert len(EXPECTED) >= 10
    assert {kind for found in EXPECTED.values() for kind in found} == {
        "file",
        "baseline",
        "teacher",
    }


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_config_hash_of_a_shipped_experiment_is_as_before(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    assert hashes(load_experiment(ROOT / name)) == EXPECTED[name]
