"""A search with a warm start from an earlier one."""

from __future__ import annotations

import math
from typing import Any

import pytest
from search_fakes import LAYERS, SPACE, experiment, run

from attnfd_ray.errors import ConfigError
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial, WarmStartSummary

EPOCHS = 9
WEIGHT = {"method.loss_weight": {"float": [0.1, 100], "log": True}}


def old(k: int, values: dict[str, Any], scores: list[float], **kw: Any) -> PastTrial:
    return PastTrial(
        **{"trial_id": f"old-{k:04d}", "role": "trial", "state": "COMPLETE", **kw},
        values=values,
        epochs=list(enumerate(scores, start=1)),
    )


def weights(num: int = 20) -> list[PastTrial]:
    """Complete trials whose score decreases with the distance of the weight from 3."""
    found = [0.1 * 1000 ** (k / num) for k in range(num)]
    return [
        old(k, {"method.loss_weight": w}, [0.6 - 0.2 * abs(math.log10(w / 3))] * EPOCHS)
        for k, w in enumerate(found)
    ]


def plan_of(
    earlier: list[PastTrial],
    search: dict[str, Any] = WEIGHT,
    history: list[PastTrial] | None = None,
    **kw: Any,
) -> SearchPlan:
    settings = experiment(search, epochs=EPOCHS, **kw)
    return SearchPlan(settings, search_id="s", earlier=earlier, history=history or [])


def known(plan: SearchPlan) -> list[tuple[str, float | None]]:
    return [(trial.state.name, trial.value) for trial in plan._study._optuna_study.get_trials()]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_first_draws_are_where_the_earlier_search_was_best(sampler: str) -> None:
    for earlier, is_near in ((weights(), True), ([], False)):
        plan = plan_of(earlier, sampler=sampler)
        drawn = [
            s.values["method.loss_weight"]
            for s in (plan.next() for _ in range(7))
            if s and s.role == "trial"
        ]
        distance = sum(abs(math.log10(weight / 3)) for weight in drawn) / len(drawn)
        assert (distance < 0.45) == is_near  # by chance: 0.76 of 3 decades


def test_earlier_trials_are_no_trials_of_this_search() -> None:
    plan, without = plan_of(weights()), plan_of([])
    assert plan.warm_start == WarmStartSummary(taken=20, outside=0)
    assert plan.counts() == without.counts()
    assert plan.counts().best_value is None
    first, second = plan.next(), plan.next()
    assert first
    assert second
    assert (first.role, first.trial_id) == ("baseline", "s-0000")
    assert (second.role, second.values) == ("as_written", {"method.loss_weight": 2.0})
    plan.report(second.trial_id, 1, 0.01)
    assert plan.counts().best_value == 0.01


@pytest.mark.parametrize("early_stopping", ["asha", "hyperband", "median"])
def test_earlier_trials_do_not_compete_with_new_ones(early_stopping: str) -> None:
    plan = plan_of(weights(), early_stopping=early_stopping)
    for score in ([0.0] * EPOCHS, [0.001] * EPOCHS, [0.002] * EPOCHS):
        suggestion = plan.next()
        assert suggestion
        assert run(plan, suggestion, score).state == "COMPLETE"


def test_a_trial_may_be_tried_again() -> None:
    space = {"method.reduction_ratio": {"choice": [8, 16]}}
    earlier = [
        old(k, {"method.reduction_ratio": ratio}, [0.5] * EPOCHS) for k, ratio in enumerate([8, 16])
    ]
    plan = plan_of(earlier, space, trials=2, duplicates="skip")
    assert [s.values for s in iter(plan.next, None)][1:] == [
        {"method.reduction_ratio": 16},
        {"method.reduction_ratio": 8},
    ]


def test_the_first_draws_are_not_those_of_an_earlier_search_with_the_same_seed() -> None:
    before = list(iter(plan_of([], SPACE, trials=4).next, None))
    earlier = [old(k, suggestion.values, [0.5] * EPOCHS) for k, suggestion in enumerate(before[1:])]
    drawn = [
        str(suggestion.values) for suggestion in iter(plan_of(earlier, SPACE, trials=4).next, None)
    ][2:]
    assert len(drawn) == 3
    assert set(drawn).isdisjoint(str(suggestion.values) for suggestion in before[2:])


def test_a_wider_space_and_more_layers_keep_what_was_learned_and_what_lies_outside_is_counted() -> (
    None
):
    narrow = {"method.layers": ["aspp"], "method.reduction_ratio": 8}
    earlier = [
        old(0, narrow, [0.5] * EPOCHS),  # no loss_weight then: the file's own
        old(1, {**narrow, "method.loss_weight": 1000.0}, [0.5] * EPOCHS),
        old(2, {**narrow, "method.layers": ["stem"]}, [0.5] * EPOCHS),
        old(
            3, {**narrow, "optim.momentum": 0.9}, [0.5] * EPOCHS
        ),  # not searched now, and as the file has it
        old(4, {**narrow, "optim.momentum": 0.5}, [0.5] * EPOCHS),
        old(5, {**narrow, "optim.no_such": 1}, [0.5] * EPOCHS),
    ]
    plan = plan_of(earlier, SPACE)
    assert plan.warm_start == WarmStartSummary(taken=2, outside=4)
    trial = plan._study._optuna_study.get_trials()[0]
    assert trial.params["method.loss_weight"] == 2.0
    assert [trial.params[f"method.layers[{layer}]"] for layer in LAYERS] == [
        False,
        False,
        True,
        False,
    ]


def test_a_trial_with_fewer_epochs_counts_as_stopped_and_epochs_beyond_the_budget_do_not() -> None:
    values = {"method.loss_weight": 1.0}
    earlier = [
        old(0, values, [0.1, 0.3, 0.2]),
        old(1, values, [0.1] * EPOCHS, state="PRUNED"),
        old(2, values, [0.2] * EPOCHS + [0.9]),
        old(3, values, [math.nan, 0.4], state="PRUNED"),
    ]
    assert known(plan_of(earlier)) == [
        ("PRUNED", 0.2),
        ("COMPLETE", 0.1),
        ("COMPLETE", 0.2),
        ("PRUNED", 0.4),
    ]


def test_the_baseline_and_what_failed_runs_or_has_no_score_teach_nothing() -> None:
    values = {"method.loss_weight": 1.0}
    earlier = [
        old(0, {}, [0.5] * EPOCHS, role="baseline"),
        old(1, values, [0.5] * EPOCHS, state="FAILED"),
        old(2, values, [0.5], state="RUNNING"),
        old(3, values, [math.nan] * EPOCHS),
        old(4, values, []),
    ]
    assert plan_of(earlier).warm_start == WarmStartSummary()


@pytest.mark.parametrize("sampler", ["random", "grid", "cmaes"])
def test_a_sampler_that_does_not_learn_from_earlier_trials_is_refused(sampler: str) -> None:
    space = {"method.loss_weight": {"float": [1, 5], "step": 1}}
    with pytest.raises(
        ConfigError, match=rf"tune\.sampler: '{sampler}' learns nothing.*needs tpe or gp"
    ):
        plan_of(weights(), space, sampler=sampler)


def test_a_search_with_a_warm_start_goes_on_as_one_never_killed() -> None:
    def continued(plan: SearchPlan) -> list[PastTrial]:
        return [
            run(plan, s, [e / (20 + s.index % 5) for e in range(EPOCHS)])
            for s in iter(plan.next, None)
        ]

    whole = continued(plan_of(weights(), trials=12))
    for k in (0, 2, 7):
        assert continued(plan_of(weights()[::-1], history=whole[:k], trials=12)) == whole[k:]
    assert continued(plan_of([], history=whole[:2], trials=12)) != whole[2:]
