"""Which run a command starts or resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError, StoreError
from attnfd_ray.runtime.files.claims import claim_run_id, experiment_lock

Make = Callable[[], ExperimentSettings]


def test_the_same_settings_resume_and_fresh_counts_up(settings: Make) -> None:
    assert claim_run_id(settings(), "train", fresh=False) == "tiny.train1"
    assert claim_run_id(settings(), "train", fresh=False) == "tiny.train1"
    assert claim_run_id(settings(), "train", fresh=True) == "tiny.train2"
    assert claim_run_id(settings(), "train", fresh=False) == "tiny.train2"
    assert claim_run_id(settings(), "search", fresh=False) == "tiny.search1"


def test_other_settings_under_the_same_name_are_refused_with_the_difference(
    tree: dict[str, Any], settings: Make
) -> None:
    claim_run_id(settings(), "train", fresh=False)
    tree["train"]["epochs"] = 5
    with pytest.raises(ConfigError) as error:
        claim_run_id(settings(), "train", fresh=False)
    assert str(error.value) == (
        "experiment 'tiny' was started with other settings (train.epochs: 4 -> 5); "
        "give the same --set as then, give the changed file another experiment name, or start "
        "over with --fresh"
    )
    assert claim_run_id(settings(), "train", fresh=True) == "tiny.train2"


def test_more_trials_and_moved_data_are_the_same_experiment(
    tree: dict[str, Any], settings: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert claim_run_id(settings(), "search", fresh=False) == "tiny.search1"
    tree["tune"] = {"trials": 99}
    tree["data"]["root"] = str(tmp_path_factory.mktemp("elsewhere"))
    assert claim_run_id(settings(), "search", fresh=False) == "tiny.search1"


def test_what_a_newer_version_added_is_no_difference(settings: Make) -> None:
    claim_run_id(settings(), "search", fresh=False)
    file = Path(settings().store) / "experiments/tiny.search1.json"
    old = json.loads(file.read_text())
    del old["tune"]["metric"]
    file.write_text(json.dumps(old))
    assert claim_run_id(settings(), "search", fresh=False) == "tiny.search1"
    file.write_text(json.dumps(old | {"gone": 1}))
    with pytest.raises(ConfigError, match="gone: 1 -> absent"):
        claim_run_id(settings(), "search", fresh=False)


def test_two_commands_cannot_work_on_one_experiment_at_once(settings: Make) -> None:
    other = pytest.raises(StoreError, match="another attnfd-ray train is working on 'tiny'")
    with (
        experiment_lock(settings(), "train"),
        experiment_lock(settings(), "search"),
        other,
        experiment_lock(settings(), "train"),
    ):
        pass
    with experiment_lock(settings(), "train"):
        pass
