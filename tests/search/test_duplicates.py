"""A config that is drawn again gets another seed, or is skipped."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
from search_fakes import experiment, past, run

from attnfd_ray.config.overrides import config_hash
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial, Suggestion

EPOCHS = 9
FEW = {
    "method.reduction_ratio": {"choice": [4, 8, 16]},
    "method.layers": {"subset": ["aspp", "decoder"], "min": 1},
}


def plan_of(history: list[PastTrial], search: dict[str, Any] = FEW, **tune: Any) -> SearchPlan:
    settings = experiment(search, epochs=EPOCHS, **{"trials": 24, **tune})
    return SearchPlan(settings, search_id="s", history=history)


def scores(suggestion: Suggestion) -> list[float]:
    """A learning curve that depends on the configuration and the seed."""
    rng = random.Random(f"{suggestion.values} {suggestion.settings.train.seed}")
    top = 0.3 + 0.5 * rng.random()
    return [round(top * epoch / (epoch + 2), 6) for epoch in range(1, EPOCHS + 1)]


def continued(plan: SearchPlan) -> list[PastTrial]:
    return [run(plan, suggestion, scores(suggestion)) for suggestion in iter(plan.next, None)]


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "cmaes"])
def test_a_config_drawn_again_runs_with_the_next_seed_it_has_not_had(sampler: str) -> None:
    _, *found = iter(plan_of([], sampler=sampler).next, None)
    assert len(found) == 24  # of 9 configs
    seeds = defaultdict(list)
    for suggestion in found:
        seeds[config_hash(suggestion.settings)].append(suggestion.settings.train.seed)
        assert suggestion.values.keys() == FEW.keys()
    assert len(seeds) <= 9
    assert max(map(len, seeds.values())) > 1
    assert all(used == list(range(1, len(used) + 1)) for used in seeds.values())


def test_the_file_as_written_counts_as_tried() -> None:
    one = {"method.reduction_ratio": {"choice": [16]}}
    found = list(iter(plan_of([], one, trials=3).next, None))
    assert [(s.role, s.settings.train.seed) for s in found] == [
        ("baseline", 1),
        ("as_written", 1),
        ("trial", 2),
        ("trial", 3),
    ]


ZERO = {**FEW, "method.loss_weight": {"choice": [0.0, 1.0]}}


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_baseline_drawn_as_a_weight_of_nothing_is_its_next_seed_whatever_the_rest(
    sampler: str,
) -> None:
    found = continued(plan_of([], ZERO, sampler=sampler, early_stopping="none"))
    alone = [p.seed for p in found if p.role == "baseline" or p.values["method.loss_weight"] == 0]
    assert len(alone) > 5
    assert alone == list(range(1, len(alone) + 1))
    for k in (3, 9, 17):
        assert (
            continued(plan_of(found[:k], ZERO, sampler=sampler, early_stopping="none")) == found[k:]
        )


@pytest.mark.parametrize("tune", [{"sampler": "grid"}, {"sampler": "random", "duplicates": "skip"}])
def test_the_baseline_is_not_drawn_again_where_duplicates_are_skipped(tune: dict[str, Any]) -> None:
    _, *found = iter(plan_of([], ZERO, **tune).next, None)
    weights = [s.values.get("method.loss_weight", 2.0) for s in found]
    assert sorted(weights) == [1.0] * 9 + [2.0]  # as written


def test_a_grid_of_methods_over_seeds_runs_the_student_alone_with_each() -> None:
    methods = [
        {"name": "search_fakes:Weightless"},
        {"name": "search_fakes:FakeMethod"},
        {"name": "none"},
    ]
    space = {"method": {"choice": methods}, "train.seed": {"choice": [1, 2, 3]}}
    _, *found = iter(plan_of([], space, sampler="grid").next, None)
    assert sorted(
        (s.settings.method.name, s.settings.train.seed) for s in found if s.role == "trial"
    ) == sorted((method["name"], seed) for method in methods for seed in (1, 2, 3))


def test_after_the_highest_seed_comes_the_lowest() -> None:
    settings = experiment({"method.reduction_ratio": {"choice": [16]}}, trials=2)
    settings = settings.model_copy(
        update={"train": settings.train.model_copy(update={"seed": 2**31 - 1})}
    )
    assert [s.settings.train.seed for s in iter(SearchPlan(settings, search_id="s").next, None)][
        1:
    ] == [2**31 - 1, 0]


@pytest.mark.parametrize(
    ("search", "tune"),
    [
        (FEW, {"sampler": "grid"}),
        (FEW, {"sampler": "random", "duplicates": "skip"}),
        ({"train.seed": {"int": [1, 9]}}, {"sampler": "random"}),
    ],
)
def test_a_grid_a_search_over_seeds_and_a_search_that_skips_try_everything_once(
    search: dict[str, Any], tune: dict[str, Any]
) -> None:
    _, *found = iter(plan_of([], search, **tune).next, None)
    assert len(found) == len({str(s.values) for s in found}) == 9


def test_a_config_that_cannot_run_gets_no_other_seed() -> None:
    plan, tried = plan_of([], sampler="random", trials=99), []
    for suggestion in iter(plan.next, None):
        tried.append(suggestion)
        plan.finish(suggestion.trial_id, "INFEASIBLE" if suggestion.index else "COMPLETE", 0.5)
    assert len(tried) == 1 + len({str(s.values) for s in tried[1:]}) == 1 + 9
    assert plan.is_done
    history = [past(s, "INFEASIBLE" if s.index else "COMPLETE", [0.5]) for s in tried]
    assert plan_of(history, sampler="random", trials=99).next() is None


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes"])
def test_a_rebuilt_search_repeats_with_the_same_seeds_wherever_it_was_cut(sampler: str) -> None:
    whole = continued(plan_of([], sampler=sampler))
    assert len({str(p.values) for p in whole[1:]}) < len(whole[1:])
    for k in range(0, len(whole), 5 if sampler == "tpe" else 1):
        assert continued(plan_of(whole[:k], sampler=sampler)) == whole[k:]


def test_a_trial_that_was_cut_off_keeps_its_seed() -> None:
    plan = plan_of([])
    started = [plan.next() for _ in range(20)]
    history = [past(s, "RUNNING", scores(s)[:1]) for s in started if s]
    assert len({p.seed for p in history}) > 1
    rebuilt = plan_of(history[::-1])
    assert [rebuilt.next() for _ in range(20)] == started
    assert rebuilt.next() == plan.next()


def test_what_an_older_search_skipped_does_not_keep_it_from_repeating_now() -> None:
    history = continued(plan_of([], duplicates="skip"))
    assert len(history) == 10
    more = continued(plan_of(history))
    assert len(more) == 15
    assert {p.seed for p in more} >= {2}
    assert min(p.seed for p in more if p.seed is not None) == 2


def test_a_further_seed_is_not_stopped_where_an_earlier_one_is_complete_or_running() -> None:
    """Otherwise only its lucky seeds would be left for its mean."""
    plan = plan_of([], {"method.reduction_ratio": {"choice": [8, 16]}}, sampler="random", trials=9)
    _, *found = (plan.next() for _ in range(10))
    of_config: dict[int, list[Suggestion]] = defaultdict(list)
    for suggestion in found:
        assert suggestion
        of_config[suggestion.values["method.reduction_ratio"]].append(suggestion)
    (first, second, third, *_), (other, another, *_) = of_config[16], of_config[8]
    assert not plan.report(first.trial_id, 1, 0.9).stop
    assert not plan.report(second.trial_id, 1, 0.1).stop  # the first is still running
    assert plan.report(other.trial_id, 1, 0.1).stop
    assert plan.report(
        another.trial_id, 1, 0.1
    ).stop  # the first of its config will not be complete
    plan.finish(first.trial_id, "COMPLETE")
    assert not plan.report(third.trial_id, 1, 0.1).stop
    assert not plan.report(third.trial_id, 3, 0.1).stop


def test_a_further_seed_of_the_baseline_is_not_stopped_where_the_baseline_is_complete() -> None:
    plan = plan_of([], ZERO, sampler="random")
    baseline, _, *found = iter(plan.next, None)
    plan.finish(baseline.trial_id, "COMPLETE", 0.9)
    alone = next(s for s in found if s.values["method.loss_weight"] == 0)
    good, poor, *_ = {
        str(s.values): s for s in found if s.values["method.loss_weight"] == 1
    }.values()
    assert not plan.report(good.trial_id, 1, 0.9).stop
    assert plan.report(poor.trial_id, 1, 0.1).stop
    assert not plan.report(alone.trial_id, 1, 0.1).stop


def test_seeds_that_are_searched_are_seeds_of_one_config_too() -> None:
    search = {"train.seed": {"choice": [1, 2, 3]}, "method.reduction_ratio": {"choice": [16]}}
    plan = plan_of([], search, sampler="random", trials=3)
    _, first, second, _ = (plan.next() for _ in range(4))
    assert first
    assert second
    assert not plan.report(first.trial_id, 1, 0.9).stop
    assert not plan.report(second.trial_id, 1, 0.1).stop
