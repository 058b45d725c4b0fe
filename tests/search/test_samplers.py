from __future__ import annotations

import doctest
import importlib.util
import logging
import subprocess
import sys
import warnings
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution

from attnfd_ray import registry
from attnfd_ray.config import samplers
from attnfd_ray.config.spaces import parse_space
from attnfd_ray.errors import ConfigError
from attnfd_ray.search.distributions import to_distributions

FINITE = {
    "layers": {"subset": ["a", "b"], "min": 0},
    "ratio": {"choice": [4, 8, 16]},
    "lr": {"float": [0.1, 0.3], "step": 0.1},
    "power": {"int": [1, 9], "step": 4},
}


def distributions_of(search: dict[str, Any]) -> dict[str, BaseDistribution]:
    return to_distributions({path: parse_space(space) for path, space in search.items()})


def draws(
    name: str, seed: int, distributions: dict[str, BaseDistribution], num: int
) -> list[dict[str, Any]]:
    """Ask and tell with a fresh sampler for each draw, as the plan does."""
    study = optuna.create_study(direction="maximize")
    found = []
    for k in range(num):
        study.sampler = registry.load("sampler", name)(seed + k, distributions)
        trial = study.ask(distributions)
        found.append(trial.params)
        study.tell(trial, float(trial.params["lr"]))
    return found


def test_every_sampler_has_its_traits() -> None:
    assert set(samplers.SAMPLERS) == set(registry.TABLES["sampler"])
    assert doctest.testmod(samplers).failed == 0


@pytest.mark.parametrize("name", registry.TABLES["sampler"])
def test_every_sampler_stays_in_the_space_draws_the_same_from_the_same_seed_and_keeps_quiet(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    search = FINITE if name == "grid" else {**FINITE, "lr": {"float": [1e-3, 1], "log": True}}
    distributions = distributions_of(search)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error", UserWarning)
        once, twice, other = (draws(name, seed, distributions, 10) for seed in (3, 3, 4))
    assert once == twice != other
    for params in once:
        assert all(d._contains(d.to_internal_repr(params[key])) for key, d in distributions.items())
    assert not caplog.records


@pytest.mark.parametrize(("name", "num_draws"), [("tpe", 40), ("gp", 14), ("cmaes", 40)])
def test_a_sampler_that_learns_does_so_though_it_is_made_afresh_for_each_draw(
    name: str, num_draws: int
) -> None:
    distributions = distributions_of({"lr": {"float": [0, 1]}, "ratio": {"float": [0, 1]}})
    late = [params["lr"] for params in draws(name, 0, distributions, num_draws)[-6:]]
    assert sum(late) / len(late) > 0.65  # chance: 0.5 +- 0.12


def test_a_grid_tries_every_combination_once_and_its_last_tell_does_not_raise() -> None:
    found = draws("grid", 5, distributions_of(FINITE), 108)
    assert len({tuple(sorted(params.items())) for params in found}) == 108


def test_a_grid_over_real_numbers_names_the_setting_and_the_way_out() -> None:
    with pytest.raises(ConfigError) as caught:
        registry.load("sampler", "grid")(
            0, distributions_of({"optim.lr": {"float": [0.1, 1]}, "n": {"int": [1, 2]}})
        )
    (line,) = caught.value.problems
    assert "optim.lr" in line
    assert "step" in line
    assert "choice" in line


def test_a_sampler_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=r"pip install attnfd-ray\[cmaes\]"):
        registry.load("sampler", "cmaes")(0, {})


def test_the_package_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, attnfd_ray.search.plan\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
