"""Every method of the table in a real run, and a user's own, as in docs/own_method.md."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from train_runs import differing_paths, experiment, make_run, on_workers, plain, train

from attnfd_ray import registry
from attnfd_ray.config.schema import ExperimentSettings

OWN_METHOD = Path(__file__).parents[2] / "docs" / "own_method.md"
SUM = {"name": "sum", "terms": [{"name": "kd", "weight": 1}, {"name": "cwd_feature", "weight": 50}]}
ONE_STEP: dict[str, Any] = {"train__epochs": 1, "train__steps_per_epoch": 1}
METHODS = sorted(registry.TABLES["method"].keys() - {"none"})


def block(opening: str) -> str:
    """Return the only block of the guide that opens with this line."""
    (found,) = re.findall(
        rf"^```{opening}\n(.*?)^```$", OWN_METHOD.read_text(encoding="utf-8"), re.M | re.S
    )
    return str(found)


@pytest.fixture
def own_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put the guide's module on the path; return its `method:` section."""
    package = tmp_path / "path" / "mypackage"
    package.mkdir(parents=True)
    (package / "losses.py").write_text(
        block('python title="mypackage/losses.py"'), encoding="utf-8"
    )
    monkeypatch.syspath_prepend(package.parent)
    return yaml.safe_load(block("yaml"))["method"]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains(name: str, toys: Path, tmp_path: Path) -> None:
    outcome, records = train(
        experiment(toys, method=SUM if name == "sum" else {"name": name}, **ONE_STEP), tmp_path
    )
    terms = records[0].loss_terms
    assert len(terms) >= 2
    assert all(0 <= value < float("inf") for value in terms.values())
    weights = load_file(outcome.best_weights)
    assert all(tensor.isfinite().all() for tensor in weights.values())


def train_each(runs: dict[str, tuple[ExperimentSettings, Path]]) -> dict[str, dict[str, Tensor]]:
    """Train one after another; return the trained parameters of each."""
    learned = {}
    for name, (settings, directory) in runs.items():
        run = make_run(settings, directory)
        run.run(lambda _: False)
        learned[name] = {
            key: parameter.detach().clone() for key, parameter in run.task.named_parameters()
        }
    return learned


@pytest.mark.slow
def test_two_workers_train_every_method_and_stay_equal(toys: Path, tmp_path: Path) -> None:
    """DistributedDataParallel ends a run in which a trainable parameter has no gradient."""
    runs = {
        name: (
            experiment(
                toys,
                method=SUM if name == "sum" else {"name": name},
                train__epochs=2,
                train__steps_per_epoch=2,
            ),
            tmp_path / name,
        )
        for name in METHODS
    }
    first, second = on_workers(2, tmp_path / "group", train_each, runs)
    assert first.keys() == second.keys() == set(METHODS)
    for name in METHODS:
        assert differing_paths(first[name], second[name]) == [], name


def test_in_the_first_epoch_of_ofd_the_student_rests_and_then_all_learn(
    toys: Path, tmp_path: Path
) -> None:
    run = make_run(experiment(toys, method={"name": "ofd"}, train__steps_per_epoch=1), tmp_path)

    def weights() -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in run.task.named_parameters()}

    states = [weights()]
    run.run(lambda _: bool(states.append(weights())))
    moved = [
        {name.split("/")[1].partition(".")[0] for name in differing_paths(*pair)}
        for pair in itertools.pairwise(states)
    ]
    assert moved == [{"method"}, {"method", "student"}]


def test_the_guides_own_method_trains_and_is_no_part_of_the_exported_student(
    own_method: Any, toys: Path, tmp_path: Path
) -> None:
    run = make_run(experiment(toys, method=own_method), tmp_path / "run")
    before = [parameter.detach().clone() for parameter in run.task.method.parameters()]
    records: list[dict[str, float]] = []
    outcome = run.run(lambda record: bool(records.append(record.loss_terms)))
    assert [list(terms) for terms in records] == [
        ["cross_entropy", "mine/aspp", "mine/decoder"]
    ] * 2
    assert (
        len(before) == 2 * 3
    )  # of each connector the convolution and both weights of its BatchNorm
    assert not any(map(torch.equal, before, run.task.method.parameters()))
    assert load_file(outcome.best_weights).keys() == run.student.state_dict().keys()


def test_the_guides_own_method_at_weight_zero_is_the_student_alone(
    own_method: Any, toys: Path, tmp_path: Path
) -> None:
    weightless, _ = train(
        experiment(toys, method=own_method | {"loss_weight": 0}, **ONE_STEP),
        tmp_path / "weightless",
    )
    student, _ = train(plain(toys, **ONE_STEP), tmp_path / "plain")
    assert weightless.best_weights.read_bytes() == student.best_weights.read_bytes()


def test_the_guides_own_method_can_be_a_term_of_a_sum(
    own_method: Any, toys: Path, tmp_path: Path
) -> None:
    own = {name: value for name, value in own_method.items() if name != "loss_weight"} | {
        "weight": 0.5
    }
    _, records = train(
        experiment(toys, method={"name": "sum", "terms": [{"name": "kd"}, own]}, **ONE_STEP),
        tmp_path,
    )
    assert list(records[0].loss_terms) == [
        "cross_entropy",
        "kd/logits",
        "mine/aspp",
        "mine/decoder",
    ]
