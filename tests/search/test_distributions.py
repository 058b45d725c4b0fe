from __future__ import annotations

import json
import math
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna import create_study
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import RandomSampler

from attnfd_ray.config.spaces import parse_space
from attnfd_ray.search.distributions import decode, encode, num_values, to_distributions, walk

SPACES: dict[
    str, tuple[dict[str, Any], list[Any]]
] = {  # kind -> a space and values of it, its ends among them
    "float": ({"float": [-0.3, 0.7]}, [-0.3, 0.1, 0.7]),
    "log float": ({"float": [1e-5, 1e2], "log": True}, [1e-5, 0.3, 1e2]),
    "float of one value": ({"float": [0.7, 0.7]}, [0.7]),
    "stepped float": ({"float": [0.1, 0.7], "step": 0.1}, [0.1, 0.3, 0.7]),
    "stepped float that misses its end": ({"float": [0, 1], "step": 0.3}, [0.0, 0.3, 0.6, 0.9]),
    "int": ({"int": [-3, 5]}, [-3, 0, 5]),
    "log int": ({"int": [1, 1024], "log": True}, [1, 7, 1024]),
    "stepped int": ({"int": [2, 14], "step": 4}, [2, 6, 14]),
    "stepped int that misses its end": ({"int": [1, 10], "step": 4}, [1, 5, 9]),
    "big int": ({"int": [0, 2**31 - 1]}, [0, 2**31 - 1]),
    "choice": ({"choice": ["poly", "constant"]}, ["poly", "constant"]),
    "choice of lists": ({"choice": [[360, 360], [720, 960]]}, [[360, 360], [720, 960]]),
    "choice of sections": (
        {"choice": [{"a": 1, "b": None}, {"a": 2}]},
        [{"b": None, "a": 1}, {"a": 2}],
    ),
    "choice python cannot tell apart": (
        {"choice": [1, True, 1.0, "1", None]},
        [1, True, 1.0, "1", None],
    ),
    "subset": ({"subset": ["a", "b", "c"], "min": 0}, [[], ["b"], ["a", "c"], ["a", "b", "c"]]),
    "bounded subset": ({"subset": ["a", "b", "c"], "min": 2, "max": 2}, [["a", "b"], ["b", "c"]]),
}
OUTSIDE: list[tuple[dict[str, Any], Any]] = [
    ({"float": [0.1, 1]}, 0.0999),
    ({"float": [0.1, 1]}, 1.0001),
    ({"float": [0.1, 1]}, True),
    ({"float": [0.1, 1]}, "0.5"),
    ({"float": [0.1, 1]}, None),
    ({"float": [0.1, 1]}, math.nan),
    ({"float": [0, 1], "step": 0.25}, 0.3),
    ({"int": [1, 9], "step": 2}, 2),
    ({"int": [1, 9]}, 2.5),
    ({"choice": [4, 8]}, 5),
    ({"choice": [[1, 2]]}, [2, 1]),
    ({"subset": ["a", "b"], "min": 1}, []),
    ({"subset": ["a", "b"], "max": 1}, ["a", "b"]),
    ({"subset": ["a", "b"]}, ["c"]),
    ({"subset": ["a", "b"]}, ["a", "a"]),
    ({"subset": ["a", "b"]}, "a"),
]


def search_of(space: dict[str, Any]) -> dict[str, Any]:
    return {"a.b": parse_space(space)}


@pytest.mark.parametrize("kind", SPACES)
def test_values_come_back_from_their_params_unchanged_at_both_ends_and_between(kind: str) -> None:
    space, values = SPACES[kind]
    search = search_of(space)
    distributions = to_distributions(search)
    for value in values:
        params = encode({"a.b": value}, search)
        assert params is not None, value
        assert params.keys() == distributions.keys()
        internal = {name: distributions[name].to_internal_repr(params[name]) for name in params}
        assert all(distributions[name]._contains(internal[name]) for name in params)
        restored = {name: distributions[name].to_external_repr(internal[name]) for name in params}
        back = decode(restored, search)["a.b"]
        assert json.dumps(back, sort_keys=True) == json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("kind", SPACES)
def test_what_optuna_draws_decodes_to_something_that_encodes_to_the_same(kind: str) -> None:
    search = search_of(SPACES[kind][0])
    study = create_study(sampler=RandomSampler(seed=0))
    for _ in range(20):
        params = study.ask(to_distributions(search)).params
        values = decode(params, search)
        again = encode(values, search)
        if again is None:
            assert kind == "bounded subset"
            assert len(values["a.b"]) != 2
        else:
            assert (
                again == pytest.approx(params)
                if kind.startswith("stepped float")
                else again == params
            )
            assert decode(again, search) == values


@pytest.mark.parametrize(("space", "value"), OUTSIDE)
def test_a_value_outside_its_space_has_no_params(space: dict[str, Any], value: Any) -> None:
    assert encode({"a.b": value}, search_of(space)) is None


def test_values_that_lack_a_setting_or_have_one_too_many_have_no_params() -> None:
    search = search_of({"int": [1, 9]})
    assert encode({}, search) is None
    assert encode({"a.b": 1, "c": 2}, search) is None


def test_a_subset_is_one_yes_or_no_a_member_and_decodes_in_the_order_of_the_file() -> None:
    search = search_of({"subset": ["z", "a", "m"]})
    assert list(to_distributions(search)) == ["a.b[z]", "a.b[a]", "a.b[m]"]
    assert all(
        d == CategoricalDistribution([False, True]) for d in to_distributions(search).values()
    )
    assert decode({"a.b[m]": True, "a.b[a]": False, "a.b[z]": True}, search) == {"a.b": ["z", "m"]}


def test_the_order_a_file_names_the_members_in_does_not_matter() -> None:
    search = search_of({"subset": ["z", "a"]})
    assert encode({"a.b": ["a", "z"]}, search) == encode({"a.b": ["z", "a"]}, search)


def test_numbers_that_pydantic_made_floats_are_found_among_whole_choices() -> None:
    search = search_of({"choice": [1, 2]})
    assert encode({"a.b": 2.0}, search) == {"a.b": 2}


def test_a_range_whose_end_is_off_its_steps_ends_before_it_and_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_distributions(search_of({"int": [1, 10], "step": 4}))["a.b"] == IntDistribution(
            1, 9, step=4
        )
        assert to_distributions(search_of({"float": [0, 1], "step": 0.3}))["a.b"].high == 0.9  # type: ignore[attr-defined]


@given(
    low=st.integers(-50, 50),
    steps=st.integers(0, 30),
    step=st.sampled_from([0.01, 0.05, 0.1, 0.3, 2.5]),
)
def test_every_step_of_a_float_range_is_there_and_comes_back(
    low: int, steps: int, step: float
) -> None:
    start = low / 10
    search = search_of({"float": [start, round(start + steps * step, 6)], "step": step})
    values = [params["a.b"] for params in walk(to_distributions(search))]
    assert len(values) == steps + 1
    assert values == pytest.approx([start + k * step for k in range(steps + 1)])
    assert [encode({"a.b": value}, search) for value in values] == [
        {"a.b": value} for value in values
    ]


def test_a_walk_meets_every_combination_once_wherever_it_starts() -> None:
    search = {
        "layers": parse_space({"subset": ["a", "b"]}),
        "ratio": parse_space({"choice": [4, 8, 16]}),
        "power": parse_space({"float": [0.5, 1], "step": 0.25}),
        "lr": parse_space({"float": [0.1, 1]}),
    }
    distributions = to_distributions(search)
    assert [num_values(d) for d in distributions.values()] == [2, 2, 3, 3, None]
    for start in (0, 7, 1000):
        met = list(walk(distributions, start, {"lr": 0.5}))
        assert len(met) == len({tuple(params.values()) for params in met}) == 36
        assert all(params["lr"] == 0.5 for params in met)
    assert next(walk(distributions, 7)) == list(walk(distributions))[7]
