"""Baseline trials: the settings they vary, their order, and their competitors."""

from __future__ import annotations

import random
from typing import Any

import pytest
from search_fakes import SPACE, experiment, killed_again_and_again, past, run

from attnfd_ray.config.overrides import baseline_of, config_hash, with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.search.baseline import tuning_space
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial, Suggestion

EPOCHS = 9
FEW = {
    "optim.lr": {"choice": [0.1, 0.2]},
    "optim.weight_decay": {"choice": [0.0, 5e-4]},
    "method.reduction_ratio": {"choice": [4, 8]},
}


def settings_of(search: dict[str, Any] | None = None, **tune: Any) -> ExperimentSettings:
    return experiment(search, epochs=EPOCHS, **{"trials": 6, "baseline_trials": 4, **tune})


def plan_of(
    history: list[PastTrial], search: dict[str, Any] | None = None, **tune: Any
) -> SearchPlan:
    return SearchPlan(settings_of(search, **tune), search_id="s-1", history=history)


def scores(suggestion: Suggestion) -> list[float]:
    """A learning curve that depends on the configuration and the seed."""
    rng = random.Random(f"{suggestion.values} {suggestion.settings.train.seed}")
    top = 0.3 + 0.5 * rng.random()
    return [
        round(top * epoch / (epoch + 2) + 0.02 * rng.random(), 6) for epoch in range(1, EPOCHS + 1)
    ]


def continued(plan: SearchPlan) -> list[PastTrial]:
    return [run(plan, suggestion, scores(suggestion)) for suggestion in iter(plan.next, None)]


def space_of(settings: ExperimentSettings) -> dict[str, Any]:
    dumped: dict[str, Any] = tuning_space(settings).model_dump(mode="json")["search"]
    return dumped


# ---- settings that they vary


def test_learning_rate_and_weight_decay_are_varied_around_the_file_s_own_values() -> None:
    lr, decay = (space_of(settings_of())[path] for path in ("optim.lr", "optim.weight_decay"))
    assert lr == {"float": [0.007 / 4, 0.007 * 4], "step": None, "log": True}
    assert decay["float"] == pytest.approx([5e-5, 5e-3])


def test_what_is_searched_outside_the_method_and_the_student_is_shared_as_the_file_has_it() -> None:
    shared = {
        "optim.lr": {"float": [0.01, 0.02]},
        "train.batch_size": {"choice": [8, 16]},
        "data.flip": {"float": [0, 1]},
    }
    own = {**SPACE, "student.width": {"choice": [0.5, 1.0]}, "train.seed": {"int": [1, 3]}}
    found = space_of(settings_of({**own, **shared}))
    assert found.keys() == {*shared, "optim.weight_decay"}
    assert found["optim.lr"]["float"] == [0.01, 0.02]


def test_a_weight_decay_of_nothing_stays_so() -> None:
    assert space_of(with_values(settings_of(), {"optim.weight_decay": 0.0})).keys() == {"optim.lr"}


def test_a_section_that_is_searched_as_a_whole_is_not_varied_twice() -> None:
    assert space_of(settings_of({"optim": {"choice": [{"lr": 0.1}, {"lr": 0.2}]}})).keys() == {
        "optim"
    }


def test_a_grid_has_steps_and_all_its_trials_are_unlike() -> None:
    search = {"method.reduction_ratio": {"choice": [4, 8]}}
    found = list(iter(plan_of([], search, sampler="grid", baseline_trials=99).next, None))
    drawn = [s.values for s in found if s.role == "baseline_trial"]
    assert (
        len(drawn) == len({str(values) for values in drawn}) == 5 * 3 - 1
    )  # the baseline itself is one of them
    assert [s.role for s in found if s.role != "baseline_trial"] == [
        "baseline",
        "as_written",
        "trial",
        "trial",
    ]


def test_every_one_is_the_student_alone_with_these_values() -> None:
    base = baseline_of(settings_of())
    assert base is not None
    for suggestion in iter(plan_of([]).next, None):
        if suggestion.role == "baseline_trial":
            assert suggestion.values.keys() == {"optim.lr", "optim.weight_decay"}
            assert suggestion.settings == with_values(base, suggestion.values)


def test_a_method_without_a_baseline_is_refused_with_the_way_out() -> None:
    settings = experiment({}, method={"name": "search_fakes:Weightless"}, baseline_trials=1)
    with pytest.raises(
        ConfigError,
        match=r"tune\.baseline_trials: method 'search_fakes:Weightless' has no .*needs 0",
    ):
        SearchPlan(settings, search_id="s-1")


def test_the_method_none_is_the_student_alone_and_can_be_tuned() -> None:
    settings = with_values(
        settings_of({"optim.momentum": {"float": [0.5, 0.9]}}), {"method": {"name": "none"}}
    )
    found = list(iter(SearchPlan(settings, search_id="s-1").next, None))
    assert [s.role for s in found] == ["as_written"] + ["baseline_trial"] * 4 + ["trial"] * 5
    assert {s.settings.method.name for s in found} == {"none"}


# ---- their order


def test_they_come_after_the_baseline_and_the_file_as_written_and_shift_no_number() -> None:
    found, without = (list(iter(plan_of([], baseline_trials=num).next, None)) for num in (4, 0))
    assert [s.role for s in found] == ["baseline", "as_written"] + ["baseline_trial"] * 4 + [
        "trial"
    ] * 5
    assert [s.trial_id for s in found[2:6]] == ["s-1-b0001", "s-1-b0002", "s-1-b0003", "s-1-b0004"]
    assert [s for s in found if s.role != "baseline_trial"] == [
        s.__class__(**{**vars(s), "settings": with_values(s.settings, {"tune.baseline_trials": 4})})
        for s in without
    ]


def test_the_counts_have_them_and_the_best_of_them_is_the_baseline_s() -> None:
    plan = plan_of([])
    assert plan.counts().planned == 11
    baseline, _, first, second = (plan.next() for _ in range(4))
    assert baseline
    assert first
    assert second
    for suggestion, score in ((baseline, 0.5), (first, 0.7), (second, 0.6)):
        plan.report(suggestion.trial_id, 1, score)
    assert (plan.counts().best_value, plan.counts().baseline_value) == (None, 0.7)
    plan.finish(first.trial_id, "FAILED")
    assert plan.counts().baseline_value == 0.6


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_a_search_cut_anywhere_goes_on_as_one_never_cut(sampler: str) -> None:
    search = {
        "method.loss_weight": SPACE["method.loss_weight"],
        "optim.momentum": {"float": [0, 0.9]},
    }
    whole = continued(plan_of([], search, sampler=sampler))
    assert {p.state for p in whole} == {"COMPLETE", "PRUNED"}
    for k in range(len(whole) + 1):
        assert continued(plan_of(whole[:k][::-1], search, sampler=sampler)) == whole[k:]


def test_configs_drawn_again_are_other_seeds_after_a_cut_too() -> None:
    whole = continued(plan_of([], FEW, sampler="random", baseline_trials=9))
    tried = [(str(p.values), p.seed) for p in whole if p.role == "baseline_trial"]
    assert len(set(tried)) == len(tried) == 9 > len({values for values, _ in tried})
    for k in range(len(whole) + 1):
        assert continued(plan_of(whole[:k], FEW, sampler="random", baseline_trials=9)) == whole[k:]


@pytest.mark.parametrize(
    ("sampler", "early_stopping"), [("tpe", "asha"), ("random", "hyperband"), ("cmaes", "median")]
)
def test_however_often_it_is_killed_no_config_has_a_seed_twice_and_all_trials_end(
    sampler: str, early_stopping: str
) -> None:
    tune: dict[str, Any] = {
        "sampler": sampler,
        "early_stopping": early_stopping,
        "trials": 20,
        "baseline_trials": 8,
    }
    stored = killed_again_and_again(
        lambda history: plan_of(history, FEW, **tune), scores, random.Random(0)
    )
    assert len(stored) == 1 + 20 + 8
    runs = [
        (s.role == "baseline_trial", str(s.values), s.settings.train.seed)
        for s, _, _ in stored.values()
        if s.role in ("baseline_trial", "trial")
    ]
    assert len(set(runs)) == len(runs) == 8 + 19


def test_those_that_were_cut_off_come_again_in_order() -> None:
    plan = plan_of([])
    started = [plan.next() for _ in range(8)]
    rebuilt = plan_of([past(s, "RUNNING", [0.1]) for s in reversed(started) if s])
    assert [rebuilt.next() for _ in range(8)] == started
    assert rebuilt.next() == plan.next()


def test_a_search_already_begun_may_be_given_more_of_them_or_fewer() -> None:
    whole = continued(plan_of([], baseline_trials=6))
    at_first = [p for p in whole if not p.trial_id.endswith(("b0003", "b0004", "b0005", "b0006"))]
    for begun in ([p for p in whole if p.role != "baseline_trial"], at_first):
        more = continued(plan_of(begun, baseline_trials=6))
        assert [*begun, *more] == [*begun, *(p for p in whole if p not in begun)]
    fewer = plan_of(whole, baseline_trials=0)
    assert fewer.next() is None
    assert fewer.counts().finished == fewer.counts().planned == 13


# ---- their competitors


def test_they_compete_with_baselines_alone_and_the_baseline_itself_is_never_stopped() -> None:
    plan = plan_of([], baseline_trials=3)
    baseline, written, first, second, third, drawn = (plan.next() for _ in range(6))
    assert baseline
    assert written
    assert first
    assert second
    assert third
    assert drawn
    assert not plan.report(written.trial_id, 1, 0.9).stop
    assert not plan.report(
        first.trial_id, 1, 0.3
    ).stop  # the first of its kind; the score of the file as written does not count
    decision = plan.report(second.trial_id, 1, 0.2)
    assert decision.reason == "0.2000 at epoch 1 is not the best of 2 at rung 0 (cut-off 0.3000)"
    for epoch in range(1, EPOCHS + 1):
        assert not plan.report(baseline.trial_id, epoch, 0.1).stop
    assert not plan.report(third.trial_id, 1, 0.4).stop
    assert plan.report(
        drawn.trial_id, 1, 0.8
    ).stop  # and baselines do not lower the bar of the rest


def test_the_baseline_counts_at_their_rungs() -> None:
    plan = plan_of([])
    baseline, _, first = (plan.next() for _ in range(3))
    assert baseline
    assert first
    plan.report(baseline.trial_id, 1, 0.5)
    assert plan.report(first.trial_id, 1, 0.4).stop


def test_a_baseline_trial_has_the_settings_of_the_student_without_its_teacher() -> None:
    found = [s for s in iter(plan_of([]).next, None) if s.role == "baseline_trial"]
    base = baseline_of(settings_of())
    assert base is not None
    assert (
        config_hash(found[0].settings)
        == config_hash(with_values(base, found[0].values))
        != config_hash(base)
    )
