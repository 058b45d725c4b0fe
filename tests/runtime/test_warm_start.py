"""The earlier trials that a search starts with, and that they stay the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from command_line import CommandLine, write

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.runtime.files.warm_start import earlier_trials
from attnfd_ray.search.records import PastTrial
from attnfd_ray.store.rows import EpochRow, TrialRow
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState

Make = Callable[[], ExperimentSettings]
SPACE = {"method.loss_weight": {"float": [0.1, 10], "log": True}}


def add(
    root: str | Path,
    experiment: str,
    *,
    weight: float = 1.0,
    number: int = 2,
    role: Any = "trial",
    epochs: int = 2,
    config: dict[str, Any] | None = None,
    **facts: Any,
) -> None:
    """Append a trial of two epochs, which searched the weight, with momentum 0.5."""
    trial_id = f"{experiment}.search1-{number:04d}"
    who: dict[str, Any] = {
        "experiment": experiment,
        "search_id": f"{experiment}.search1",
        "trial_id": trial_id,
    }
    who |= {"seed": 1, "method": "attnfd", "role": role}
    store = Store.open(root, create=True)
    for epoch in range(1, epochs + 1):
        store.append_epoch(EpochRow(**who, epoch=epoch, epochs_total=4, val_miou=epoch / 10))
    store.append_trial(
        TrialRow(
            **who,
            **{"state": TrialState.PRUNED, **facts},
            searched_json=json.dumps({"method.loss_weight": weight}),
            config_json=json.dumps({"optim": {"momentum": 0.5}, **(config or {})}),
        )
    )


def earlier(
    settings: ExperimentSettings,
    source: str | None,
    *,
    search_id: str = "tiny.search1",
    has_begun: bool = False,
) -> list[PastTrial]:
    store = Store.open(settings.store, create=False)
    return earlier_trials(settings, store, search_id, source, has_begun=has_begun)


def begin(
    settings: ExperimentSettings, source: str | None, *, has_begun: bool = False
) -> list[Any]:
    found = earlier(settings, source, has_begun=has_begun)
    return [(past.trial_id, past.values, list(map(tuple, past.epochs))) for past in found]


EPOCHS = [(1, 0.1), (2, 0.2)]


@pytest.fixture
def make(tree: dict[str, Any], settings: Make) -> Make:
    tree["search"] = SPACE
    Store.open(tree["store"], create=True)
    (Path(tree["store"]) / "experiments").mkdir()
    return settings


def test_sizes_of_the_trials_are_read_if_they_are_a_search_metric(
    tree: dict[str, Any], make: Make
) -> None:
    tree["search"] = SPACE | {"student.width": {"float": [0.1, 1]}}
    tree["tune"] = {"metric": ["val_miou", "student_params"]}
    whole = {
        "state": TrialState.COMPLETE,
        "student_params": 1234,
        "config": {"student": {"width": 0.5}},
        "epochs": 4,
    }
    add(make().store, "old", **whole)
    (past,) = earlier(make(), "old")
    assert (past.measures, past.values["student.width"]) == ({"student_params": 1234}, 0.5)
    assert earlier(make(), None, has_begun=True) == [replace(past, epochs=ANY)]


def test_an_experiment_of_the_same_store_is_given_by_its_name(make: Make) -> None:
    add(make().store, "old")
    add(make().store, "old", number=0, role="baseline")
    add(make().store, "other", weight=2)
    assert begin(make(), "old") == [("old.search1-0002", {"method.loss_weight": 1.0}, EPOCHS)]


def test_another_store_is_given_by_its_directory_or_with_the_experiment(
    make: Make, tmp_path: Path
) -> None:
    add(tmp_path / "there", "old")
    assert begin(make(), str(tmp_path / "there"))[0][0] == "old.search1-0002"
    add(tmp_path / "there", "new")
    assert begin(make(), None)[0][0] == "old.search1-0002"
    with pytest.raises(
        ConfigError,
        match=r"--warm-start \S+there: which experiment\? give \S+there:NAME; there is: new, old",
    ):
        earlier(make(), str(tmp_path / "there"), search_id="tiny.search2")
    (past,) = earlier(make(), f"{tmp_path / 'there'}:new", search_id="tiny.search2")
    assert past.trial_id == "new.search1-0002"


def test_a_setting_searched_only_now_has_the_value_of_the_trials_own_settings(
    tree: dict[str, Any], make: Make
) -> None:
    tree["search"] = {
        **SPACE,
        "optim.momentum": {"float": [0.1, 0.9]},
        "optim.lr": {"float": [0.001, 0.1]},
    }
    add(make().store, "old")
    assert begin(make(), "old")[0][1] == {"method.loss_weight": 1.0, "optim.momentum": 0.5}


def test_a_resumed_search_starts_with_the_same_trials_if_the_source_has_changed(
    make: Make,
) -> None:
    add(make().store, "old")
    begun = begin(make(), "old")
    add(make().store, "old", number=3)
    assert begin(make(), None, has_begun=True) == begin(make(), "old", has_begun=True) == begun


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("odl", r"neither a store nor an experiment with a search in \S+; did you mean 'old'\?"),
        ("{store}:odl", r"has no search of 'odl'; did you mean 'old'\?"),
        ("{empty}", "the store has no search"),
        ("far", r"no finished trial in the space of `search:` \(1 outside it\); widen the space"),
    ],
)
def test_a_source_that_does_not_exist_is_refused_and_not_saved(
    make: Make, tmp_path: Path, source: str, problem: str
) -> None:
    add(make().store, "old")
    add(make().store, "far", weight=99)
    Store.open(tmp_path / "empty", create=True)
    with pytest.raises(ConfigError, match=problem):
        begin(make(), source.format(store=make().store, empty=tmp_path / "empty"))
    assert begin(make(), None) == []


def test_a_search_with_another_start_is_not_resumed(make: Make) -> None:
    add(make().store, "old")
    with pytest.raises(
        ConfigError, match=r"tiny\.search1 was started without a warm start; leave --warm-start out"
    ):
        begin(make(), "old", has_begun=True)
    begin(make(), "old")
    with pytest.raises(
        ConfigError, match=r"was started with --warm-start old; leave .* or start over with --fresh"
    ):
        begin(make(), "other", has_begun=True)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_command_logs_its_warm_start_and_resumes_with_it(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path, make: Make
) -> None:
    tree["train"]["epochs"] = 1
    tree["tune"] = {"trials": 2}
    add(make().store, "old")
    file = write(tree, tmp_path)
    refused = attnfd_ray("tune", file, "--warm-start", "odl")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    for arguments in (["--warm-start", "old"], []):
        done = attnfd_ray("tune", file, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "warm start: the sampler knows 1 earlier trials; 0 outside" in done.stdout
