"""A search with several metrics.

It finds a front, stops nothing early, and resumes as if never killed.
"""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from search_fakes import LAYERS, experiment

from attnfd_ray.errors import ConfigError
from attnfd_ray.search.objectives import objective_values
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial, Suggestion
from attnfd_ray.search.warm_start import check_sampler

BOTH = ["val_miou", "student_params"]
SEARCH: dict[str, Any] = {
    "student.width": {"float": [0.125, 1.0]},
    "method.layers": {"subset": LAYERS, "min": 1},
    "method.reduction_ratio": {"choice": [4, 8, 16, 32]},
    "method.loss_weight": {"float": [0.01, 1000], "log": True},
    "optim.lr": {"float": [1e-4, 1], "log": True},
}
GRID = {
    "student.width": {"float": [0.25, 1.0], "step": 0.25},
    "method.reduction_ratio": {"int": [1, 8]},
}
WRITTEN = {
    "student.width": 1.0,
    "method.layers": ["aspp"],
    "method.reduction_ratio": 16,
    "method.loss_weight": 2.0,
    "optim.lr": 0.007,
}


def table(values: dict[str, Any]) -> tuple[float, float]:
    """Return mIoU, a fraction, and millions of parameters.

    With the same other settings, a wider student is better.
    """
    values = WRITTEN | values
    top = 0.75 - 0.03 * len(set(values["method.layers"]) ^ {"aspp", "decoder"})
    top -= 0.0 if values["method.reduction_ratio"] == 8 else 0.02
    top -= 0.04 * abs(math.log10(values["method.loss_weight"] / 3)) + 0.06 * abs(
        math.log10(values["optim.lr"] / 0.01)
    )
    return max(0.0, top - 0.25 * (1 - values["student.width"]) ** 2), values["student.width"] ** 2


def end(plan: SearchPlan, suggestion: Suggestion) -> PastTrial:
    """Run a trial of one epoch to its end, and return it as the store would."""
    miou, params = table(suggestion.values)
    assert not plan.report(suggestion.trial_id, 1, miou).stop
    measures = {"student_params": params, "latency_ms": 3 + 10 * params}
    plan.finish(suggestion.trial_id, "COMPLETE", miou, measures)
    return PastTrial(
        trial_id=suggestion.trial_id,
        role=suggestion.role,
        values=suggestion.values,
        state="COMPLETE",
        epochs=[(1, miou)],
        measures=measures,
    )


def plan_of(
    history: list[PastTrial], search: dict[str, Any] = SEARCH, trials: int = 24, **tune: Any
) -> SearchPlan:
    settings = experiment(search, epochs=1, trials=trials, **{"metric": BOTH, **tune})
    return SearchPlan(settings, search_id="s", history=history)


def continued(plan: SearchPlan) -> list[PastTrial]:
    return [end(plan, suggestion) for suggestion in iter(plan.next, None)]


def under_front(trials: list[PastTrial]) -> float:
    """Return the area of (parameters below 1 M, mIoU) that the trials dominate.

    The larger, the better the front.
    """
    area = best = 0.0
    for miou, params in sorted(
        (table(trial.values) for trial in trials), key=lambda point: point[1]
    ):
        area += max(0.0, miou - best) * (1 - params)
        best = max(best, miou)
    return area


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_front_found_is_better_than_that_of_random_search(sampler: str) -> None:
    found, by_chance = (
        [
            under_front(continued(plan_of([], trials=64, sampler=name, seed=seed)))
            for seed in range(6)
        ]
        for name in (sampler, "random")
    )
    assert sum(map(float.__gt__, found, by_chance)) >= 5  # seen: 6 with tpe and with nsga2
    assert sum(found) / 6 > sum(by_chance) / 6 + 0.02  # seen: 0.05 with either


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "search", "metric", "killed_after"),
    [
        ("tpe", SEARCH, BOTH, range(26)),
        ("nsga2", SEARCH, BOTH, range(26)),
        ("nsga2", SEARCH, [*BOTH, "latency_ms"], (9, 17, 20)),
        ("nsga2", SEARCH, "val_miou", (9, 17, 20)),
        ("random", SEARCH, BOTH, (13,)),
        ("grid", GRID, ["latency_ms", "val_miou"], (3, 20)),
    ],
)
def test_a_search_killed_and_rebuilt_runs_the_trials_of_one_never_killed(
    sampler: str, search: dict[str, Any], metric: str | list[str], killed_after: Any
) -> None:
    tune = {"sampler": sampler, "metric": metric, "early_stopping": "none"}
    whole = continued(plan_of([], search, **tune))
    assert len(whole) == 25
    for k in killed_after:
        assert (
            continued(plan_of(whole[:k][::-1], search, **tune)) == whole[k:]
        )  # the store has no order


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_trials_that_run_side_by_side_rebuild_to_the_same_next_draw(sampler: str) -> None:
    plan = plan_of([], sampler=sampler)
    done = [end(plan, suggestion) for suggestion in (plan.next() for _ in range(14)) if suggestion]
    running = [suggestion for suggestion in (plan.next() for _ in range(3)) if suggestion]
    cut = [
        PastTrial(trial_id=s.trial_id, role=s.role, values=s.values, state="RUNNING")
        for s in running
    ]
    rebuilt = plan_of([*done, *cut], sampler=sampler)
    assert [rebuilt.next() for _ in range(3)] == running
    assert rebuilt.next() == plan.next()


def test_the_best_of_a_search_with_several_metrics_is_still_by_miou() -> None:
    plan = plan_of([], sampler="nsga2")
    best = max(past.epochs[0][1] for past in continued(plan) if past.role != "baseline")
    assert plan.counts().best_value == best


@pytest.mark.parametrize("measures", [{}, {"student_params": math.nan}])
def test_a_trial_that_lacks_what_is_aimed_at_has_failed(measures: dict[str, float]) -> None:
    plan = plan_of([])
    ids = [suggestion.trial_id for suggestion in (plan.next(), plan.next()) if suggestion]
    for trial_id in ids:
        plan.report(trial_id, 1, 0.5)
        plan.finish(trial_id, "COMPLETE", 0.5, measures)
    assert (plan.counts().complete, plan.counts().failed) == (1, 1), (
        "the baseline is chosen by its mIoU alone"
    )
    assert plan.next() is not None


def test_values_stand_in_the_order_of_the_metrics_each_with_its_direction() -> None:
    metrics = ["latency_ms", "val_miou", "student_params"]
    study = plan_of([], metric=metrics)._study._optuna_study
    assert [direction.name for direction in study.directions] == [
        "MINIMIZE",
        "MAXIMIZE",
        "MINIMIZE",
    ]
    assert objective_values(metrics, 0.5, {"student_params": 2, "latency_ms": 7.5}) == [7.5, 0.5, 2]
    assert objective_values(["val_miou"], None, {}) is None


def earlier(num: int, measures: dict[str, float]) -> list[PastTrial]:
    rng = random.Random(0)
    return [
        PastTrial(
            trial_id=f"old-{k:04d}",
            role="trial",
            values=WRITTEN
            | {"student.width": rng.uniform(0.2, 1), "optim.lr": 10 ** rng.uniform(-4, 0)},
            state="COMPLETE",
            epochs=[(1, rng.random())],
            measures=measures,
        )
        for k in range(num)
    ]


def test_a_warm_start_takes_the_trials_whose_size_is_known() -> None:
    settings = experiment(SEARCH, epochs=1, metric=BOTH)
    known, unknown = earlier(3, {"student_params": 5.0}), earlier(5, {})[3:]
    summary = SearchPlan(settings, search_id="s", earlier=[*known, *unknown]).warm_start
    assert (summary.taken, summary.outside) == (3, 0)
    short = experiment(SEARCH, epochs=2, metric=BOTH)
    assert (
        SearchPlan(short, search_id="s", earlier=known).warm_start.taken == 0
    )  # none ran as long as one does here


def test_latencies_of_an_earlier_search_are_refused_since_its_machine_may_be_another() -> None:
    with pytest.raises(
        ConfigError,
        match="latency_ms of earlier trials may be another machine's; leave --warm-start",
    ):
        check_sampler(experiment(SEARCH, metric=["val_miou", "latency_ms"]))
    with pytest.raises(
        ConfigError, match="'nsga2' learns nothing from a warm start; needs tpe or gp"
    ):
        check_sampler(experiment(SEARCH, metric=BOTH, sampler="nsga2"))
