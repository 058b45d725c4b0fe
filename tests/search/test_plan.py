from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from search_fakes import LAYERS, SPACE, experiment, past, run

from attnfd_ray.config.overrides import with_values
from attnfd_ray.errors import ConfigError
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import CONTINUE, PastTrial, Suggestion
from attnfd_ray.terms import BASELINES, Role, SearchRole, State, TrialState

SMALL = {
    "method.reduction_ratio": {"choice": [4, 8, 16]},
    "method.layers": {"subset": ["aspp", "decoder"], "min": 1},
}


def plan_of(
    search: dict[str, Any] | None = None, history: list[PastTrial] | None = None, **kw: Any
) -> SearchPlan:
    return SearchPlan(experiment(search, **kw), search_id="s-1", history=history or [])


def all_of(plan: SearchPlan, score: float | None = 0.5) -> list[Suggestion]:
    """Return all suggestions; each is finished with the score before the next is requested."""
    found = []
    while (suggestion := plan.next()) is not None:
        found.append(suggestion)
        if score is not None:
            plan.finish(suggestion.trial_id, "COMPLETE", score)
    return found


def test_the_baseline_comes_first_then_the_file_as_written_then_what_is_drawn() -> None:
    found = all_of(plan_of(trials=4))
    assert [s.role for s in found] == ["baseline", "as_written", "trial", "trial", "trial"]
    assert [s.trial_id for s in found] == [f"s-1-{k:04d}" for k in range(5)]
    assert [s.index for s in found] == list(range(5))
    assert found[0].values == {}
    assert found[0].settings.method.loss_weight == 0
    assert found[1].values == {
        "method.layers": ["aspp"],
        "method.reduction_ratio": 16,
        "method.loss_weight": 2.0,
    }
    assert found[1].settings == experiment(trials=4)
    for suggestion in found[2:]:
        assert suggestion.values.keys() == SPACE.keys()
        assert (
            suggestion.settings
            == with_values(experiment(trials=4), suggestion.values)
            != experiment(trials=4)
        )


def test_an_empty_space_leaves_the_baseline_and_the_file_as_written() -> None:
    assert [s.role for s in all_of(plan_of({}, trials=9))] == ["baseline", "as_written"]


@pytest.mark.parametrize("method", [{"name": "search_fakes:Weightless"}, {"loss_weight": 0}])
def test_without_a_loss_weight_to_take_away_there_is_no_separate_baseline(
    method: dict[str, Any],
) -> None:
    plan = plan_of({"optim.lr": {"float": [0.001, 0.1]}}, method=method, trials=2)
    assert [s.role for s in all_of(plan)] == ["as_written", "trial"]


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "cmaes"])
def test_no_configuration_is_run_twice_where_duplicates_are_skipped(sampler: str) -> None:
    found = all_of(plan_of(SMALL, sampler=sampler, trials=8, duplicates="skip"))
    values = [str(s.values) for s in found[1:]]
    assert len(values) == len(set(values)) == 8


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_a_finite_space_ends_when_all_of_it_was_tried_even_if_trials_says_more(
    sampler: str,
) -> None:
    plan = plan_of(SMALL, sampler=sampler, trials=50, duplicates="skip")
    assert len({str(s.values) for s in all_of(plan) if s.role != "baseline"}) == 9
    assert plan.is_done
    assert plan.next() is None


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe", "cmaes"])
def test_the_steps_of_a_float_are_each_tried_once(sampler: str) -> None:
    found = all_of(
        plan_of(
            {"optim.momentum": {"float": [0.1, 0.9], "step": 0.1}},
            sampler=sampler,
            trials=30,
            duplicates="skip",
        )
    )
    momenta = [s.settings.optim.momentum for s in found[1:]]
    assert sorted(momenta) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def test_a_grid_ends_at_trials_if_that_comes_first_and_has_the_order_of_its_seed() -> None:
    once, twice, other = (
        [s.values for s in all_of(plan_of(SMALL, sampler="grid", trials=5, seed=s))]
        for s in (1, 1, 2)
    )
    assert once == twice != other
    assert len(once) == 6


def test_a_grid_over_real_numbers_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"method\.loss_weight.*step"):
        plan_of(sampler="grid")


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid"])
def test_a_subset_the_sampler_hardly_ever_hits_is_kept_within_its_bounds(sampler: str) -> None:
    # Of the 2 ** 12 draws of yes and no, 12 have one member.
    parts = [f"p{k}" for k in range(12)]
    search = {
        "method.parts": {"subset": parts, "min": 1, "max": 1},
        "method.reduction_ratio": {"int": [1, 64]},
    }
    found = all_of(plan_of(search, sampler=sampler, trials=7))[1:]
    assert len(found) == 7
    assert all(len(s.values["method.parts"]) == 1 for s in found)
    assert len({s.values["method.parts"][0] for s in found}) > 2


def test_values_that_are_not_valid_together_are_passed_over() -> None:
    # Images of a batch must be shared evenly over the parts: 4 x 2 and 5 x 3, not 4 x 3.
    search = {
        "train.accumulate": {"choice": [1, 2, 3, 4, 5]},
        "train.batch_size": {"choice": [8, 15]},
    }
    _, *drawn = all_of(plan_of(search, sampler="random", trials=40, duplicates="skip"))[1:]
    assert sorted(tuple(s.values.values()) for s in drawn) == [
        (1, 8),
        (1, 15),
        (2, 8),
        (3, 15),
        (4, 8),
        (5, 15),
    ]


def test_a_value_that_is_not_finite_is_ignored() -> None:
    plan = plan_of()
    trial = plan.next()
    assert trial
    for value in (math.nan, math.inf, -math.inf):
        assert plan.report(trial.trial_id, 1, value) == CONTINUE
    assert plan.counts().baseline_value is None


def started(plan: SearchPlan, num: int) -> list[Suggestion]:
    found = [plan.next() for _ in range(num)]
    assert all(found)
    return found  # type: ignore[return-value]


def test_a_trial_among_the_worst_is_stopped_at_its_rung_and_the_reason_says_why() -> None:
    plan = plan_of(grace_epochs=2)
    _, *trials = started(plan, 7)
    for trial, score in zip(trials, (0.1, 0.2, 0.3, 0.4, 0.5), strict=False):
        assert not plan.report(trial.trial_id, 1, score).stop
        assert not plan.report(trial.trial_id, 2, score).stop
    assert not plan.report(trials[5].trial_id, 1, 0.0).stop
    decision = plan.report(trials[5].trial_id, 2, 0.15)
    assert decision.stop
    assert (
        decision.reason
        == "0.1500 at epoch 2 is not among the best 2 of 6 at rung 0 (cut-off 0.4000)"
    )
    # Until it is finished, a stopped trial stays stopped, whatever it reports.
    assert (
        plan.report(trials[5].trial_id, 3, 0.9)
        == decision
        == plan.report(trials[5].trial_id, 2, 0.15)
    )
    # But for an epoch before, trained again after a loss of the worker, it continues.
    assert plan.report(trials[5].trial_id, 1, 0.0) == CONTINUE


def test_a_repeated_epoch_is_ignored() -> None:
    plan = plan_of()
    _, first, second = started(plan, 3)
    assert not plan.report(first.trial_id, 1, 0.5).stop
    assert not plan.report(second.trial_id, 1, 0.6).stop
    assert plan.report(second.trial_id, 1, 0.0) == CONTINUE
    assert plan.counts().best_value == 0.6


def test_neither_the_baseline_nor_anything_at_its_last_epoch_is_stopped() -> None:
    plan = plan_of(epochs=3, trials=5)
    baseline, first, second, third = started(plan, 4)
    for epoch in (1, 2, 3):
        assert not plan.report(first.trial_id, epoch, 0.9).stop
        assert not plan.report(baseline.trial_id, epoch, 0.0).stop
    assert not plan.report(second.trial_id, 1, 0.95).stop  # rungs are at 1 and 3, and 3 is the last
    assert not plan.report(second.trial_id, 3, 0.0).stop
    assert plan.report(third.trial_id, 1, 0.0).stop


def test_a_file_whose_own_values_lie_outside_the_space_still_runs_and_the_sampler_copes() -> None:
    plan = plan_of({"method.loss_weight": {"float": [5, 50]}}, trials=14)
    found = [run(plan, s, [0.1 * s.index] * 9) for s in iter(plan.next, None)]
    assert [p.role for p in found[:2]] == ["baseline", "as_written"]
    assert len(found) == 15
    assert all(5 <= p.values["method.loss_weight"] <= 50 for p in found[2:])


def optuna_states(plan: SearchPlan) -> list[str]:
    return [trial.state.name for trial in plan._study._optuna_study.get_trials()]


@pytest.mark.parametrize(
    ("state", "value", "optuna_state"),
    [
        ("COMPLETE", 0.5, "COMPLETE"),
        ("COMPLETE", None, "FAIL"),
        ("COMPLETE", math.nan, "FAIL"),
        ("PRUNED", 0.5, "PRUNED"),
        ("PRUNED", None, "PRUNED"),
        ("PRUNED", math.nan, "PRUNED"),
        ("FAILED", None, "FAIL"),
        ("FAILED", 0.5, "FAIL"),
        ("INFEASIBLE", None, "FAIL"),
    ],
)
def test_optuna_gets_the_state_of_an_ended_trial_and_keeps_no_running_one(
    state: Any, value: float | None, optuna_state: str
) -> None:
    plan = plan_of()
    trial = started(plan, 2)[1]
    plan.finish(trial.trial_id, state, value)
    plan.finish(trial.trial_id, "FAILED")  # the first end counts
    assert plan.report(trial.trial_id, 4, 0.9) == CONTINUE
    assert optuna_states(plan) == [optuna_state]


def test_a_pruned_trial_keeps_its_curve_and_a_complete_one_is_worth_its_best_epoch() -> None:
    plan = plan_of()
    _, first, second = started(plan, 3)
    run(plan, first, [0.3, 0.7, 0.5] + [0.4] * 6)
    run(plan, second, [0.1])
    complete, pruned = plan._study._optuna_study.get_trials()
    assert complete.value == 0.7
    assert len(complete.intermediate_values) == 9
    assert pruned.value == 0.1
    assert pruned.intermediate_values == {1: 0.1}


def test_the_counts_follow_the_search() -> None:
    plan = plan_of(trials=4, grace_epochs=1)
    baseline, first, second, third, fourth = started(plan, 5)
    run(plan, baseline, [0.9] * 9)
    run(plan, first, [0.4, 0.6, *[0.5] * 7])
    run(plan, second, [0.3])
    plan.report(third.trial_id, 1, 0.8)
    assert not plan.is_done
    counts = plan.counts()
    assert (counts.planned, counts.complete, counts.pruned, counts.failed) == (5, 2, 1, 0)
    assert (counts.best_value, counts.baseline_value) == (0.8, 0.9)
    plan.finish(third.trial_id, "FAILED")
    plan.finish(fourth.trial_id, "INFEASIBLE")
    counts = plan.counts()
    assert (counts.finished, counts.failed, counts.best_value) == (5, 2, 0.6)
    assert plan.is_done
    assert plan.next() is None


def test_the_members_of_a_subset_keep_the_order_of_the_file() -> None:
    for suggestion in all_of(plan_of(trials=10, sampler="random"))[2:]:
        layers = suggestion.values["method.layers"]
        assert layers == [layer for layer in LAYERS if layer in layers]
        assert past(suggestion).values == suggestion.values


def test_a_search_has_the_states_of_the_store_and_a_part_of_its_roles() -> None:
    assert {*get_args(SearchRole), "teacher", "run", "confirm"} == {*get_args(Role)}
    assert get_args(State) == tuple(TrialState)
    assert {*BASELINES} < {*get_args(SearchRole)}
