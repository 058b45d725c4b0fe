import json
import sys
import types
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from attnfd_ray.analysis.summary import summarise
from attnfd_ray.cli import cli
from attnfd_ray.config.loader import load_experiment
from attnfd_ray.config.schema import ExperimentSettings, MethodSettings
from attnfd_ray.errors import StoreError
from attnfd_ray.report.best_config import write_best_config
from attnfd_ray.terms import TrialState


def run(*args, **env):
    return CliRunner(env=env).invoke(cli, ["report", *map(str, args)], catch_exceptions=False)


def test_the_store_is_an_argument_or_the_environment_or_results(search, tmp_path, monkeypatch):
    there = run("results").stdout
    assert there.startswith("camvid\n")
    assert run().stdout == there.replace("report results", "report ./results")
    monkeypatch.chdir("/")
    assert run(ATTNFD_STORE=str(tmp_path / "results")).stdout.startswith("camvid\n")
    with pytest.raises(StoreError, match="no such directory"):
        run()


def test_json_is_one_document_with_fractions(search):
    document = json.loads(run("results", "--json").stdout)
    assert document["shown"]["protocols"][0]["best"]["best_val_miou"] == 0.6033
    assert document["shown"]["best_trial_id"] == "t3"


def test_the_best_config_is_written_beside_the_report(search):
    result = run("results", "--json", "--best-config", "best.yaml")
    json.loads(result.stdout)
    assert result.stderr == "best.yaml: the settings of trial t3\n"
    assert yaml.safe_load(Path("best.yaml").read_text()) == {
        "experiment": "camvid-best",
        "method": {"name": "attnfd"},
    }


def test_a_file_that_is_there_is_never_overwritten(search, tmp_path):
    path = tmp_path / "best.yaml"
    summary = summarise(search.store)
    write_best_config(search.store, summary, path)
    write_best_config(search.store, summary, path)  # says the same: the command can be run again
    path.write_text("mine")
    with pytest.raises(StoreError, match=r"best\.yaml: exists already"):
        write_best_config(search.store, summary, path)
    assert path.read_text() == "mine"


def test_without_a_complete_trial_there_is_no_best_config(write, tmp_path):
    write("t1", 0.5, state=TrialState.PRUNED)
    with pytest.raises(StoreError, match="results: no best config yet"):
        write_best_config(write.store, summarise(write.store), tmp_path / "best.yaml")


def test_a_directory_that_is_not_there_is_an_error_of_ours(search, tmp_path):
    with pytest.raises(StoreError, match="cannot be written: No such file"):
        write_best_config(search.store, summarise(search.store), tmp_path / "nowhere" / "best.yaml")


def test_the_best_config_is_an_experiment_that_train_can_read(write, tmp_path, monkeypatch):
    class Copy:
        needs_teacher = False

        class Settings(MethodSettings):
            loss_weight: float = 1.0

    module = types.ModuleType("a_users_own")
    module.Copy = Copy
    monkeypatch.setitem(sys.modules, "a_users_own", module)
    tried = ExperimentSettings.model_validate(
        {
            "experiment": "e" * 100,
            "data": {"name": "camvid", "root": str(tmp_path), "crop": [360, 480]},
            "student": {"backbone": "resnet18"},
            "method": {"name": "a_users_own:Copy", "loss_weight": 1.25e-05},
            "optim": {"lr": 1e-06},
            "search": {"method.loss_weight": {"float": [1e-6, 1], "log": True}},
            "tune": {"trials": 3},
            "store": str(tmp_path / "results"),
        }
    )
    write("t1", 0.5, experiment=tried.experiment, config_json=tried.model_dump_json())
    write_best_config(write.store, summarise(write.store), tmp_path / "best.yaml")
    again = load_experiment(tmp_path / "best.yaml")
    assert again.experiment == "e" * 95 + "-best"
    assert again.search == {}
    changed = {"experiment", "search", "tune"}
    assert again.model_dump(exclude=changed) == tried.model_dump(exclude=changed)
