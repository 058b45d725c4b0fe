"""A killed search is rebuilt from the store and continues as one that was never killed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from search_fakes import LAYERS, SPACE, experiment, killed_again_and_again, past, run

from attnfd_ray.registry import TABLES
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial, Suggestion

EPOCHS = 9
RANGES = {"method.loss_weight": SPACE["method.loss_weight"], "optim.momentum": {"float": [0, 0.99]}}
GRID = {
    "method.reduction_ratio": {"int": [1, 8]},
    "optim.momentum": {"float": [0, 0.9], "step": 0.3},
}

# spaces that most draws miss, and choices that are soon drawn twice
LIMITED: dict[str, Any] = {**RANGES, "method.layers": {"subset": LAYERS, "min": 1, "max": 2}}
LIMITED_GRID = {
    "method.layers": {"subset": LAYERS, "min": 2, "max": 2},
    "optim.momentum": {"float": [0, 0.9], "step": 0.1},
}


def scores(suggestion: Suggestion) -> list[float]:
    """A learning curve that depends on the configuration alone."""
    rng = random.Random(str(suggestion.values))
    top = 0.3 + 0.5 * rng.random()
    return [
        round(top * epoch / (epoch + 2) + 0.02 * rng.random(), 6) for epoch in range(1, EPOCHS + 1)
    ]


def plan_of(history: list[PastTrial], search: dict[str, Any] | None, **tune: Any) -> SearchPlan:
    return SearchPlan(
        experiment(search, epochs=EPOCHS, trials=24, **tune), search_id="s", history=history
    )


def continued(plan: SearchPlan, num: int | None = None) -> list[PastTrial]:
    """Run the next `num` trials, or all that are left, one at a time."""
    found: list[PastTrial] = []
    while (num is None or len(found) < num) and (suggestion := plan.next()) is not None:
        found.append(run(plan, suggestion, scores(suggestion)))
    return found


@pytest.mark.parametrize(
    ("sampler", "search", "killed_after"),
    [
        ("random", None, (0, 1, 2, 13, 24)),
        ("tpe", None, (0, 1, 2, 9, 17, 24)),
        ("cmaes", RANGES, (1, 5, 16)),
        ("gp", RANGES, (11,)),
        ("grid", GRID, (3, 20)),
    ],
)
def test_a_search_killed_and_rebuilt_runs_the_trials_of_one_never_killed(
    sampler: str, search: dict[str, Any] | None, killed_after: tuple[int, ...]
) -> None:
    whole = continued(plan_of([], search, sampler=sampler))
    assert len(whole) == 25
    assert {p.state for p in whole} == {"COMPLETE", "PRUNED"}
    for k in killed_after:
        rest = continued(
            plan_of(whole[:k][::-1], search, sampler=sampler)
        )  # the store has no order
        assert rest == whole[k:]


@pytest.mark.parametrize("sampler", sorted(TABLES["sampler"]))
def test_draws_that_were_rejected_change_nothing_in_a_rebuilt_search(sampler: str) -> None:
    search = LIMITED_GRID if sampler == "grid" else LIMITED
    plan = plan_of([], search, sampler=sampler)
    whole = continued(plan)
    assert len(whole) == 25
    assert len(plan._study._optuna_study.trials) > 24  # some draws were rejected
    for k in (1, 6, 9, 12, 18):
        assert continued(plan_of(whole[:k][::-1], search, sampler=sampler)) == whole[k:]


@pytest.mark.parametrize("early_stopping", ["hyperband", "median"])
def test_early_stopping_decides_in_a_rebuilt_search_as_in_one_never_killed(
    early_stopping: str,
) -> None:
    # Of 30 configurations many draws were tried before: Optuna's numbers are not those of the plan.
    few = {
        "method.layers": {"subset": LAYERS, "min": 1},
        "method.reduction_ratio": {"choice": [4, 8]},
    }
    whole = continued(plan_of([], few, early_stopping=early_stopping))
    assert {p.state for p in whole} == {"COMPLETE", "PRUNED"}
    for k in (5, 12, 19):
        assert continued(plan_of(whole[:k], few, early_stopping=early_stopping)) == whole[k:]


@pytest.mark.parametrize("num_epochs", range(EPOCHS + 1))
def test_a_trial_cut_off_at_any_epoch_comes_again_first_and_ends_as_it_would_have(
    num_epochs: int,
) -> None:
    whole = continued(plan_of([], None))
    for k in (1, 12, 20):
        victim = whole[k]
        if num_epochs > len(victim.epochs):
            continue
        cut = PastTrial(
            trial_id=victim.trial_id,
            role=victim.role,
            values=victim.values,
            state="RUNNING",
            epochs=victim.epochs[:num_epochs],
        )
        plan = plan_of([*whole[:k], cut], None)
        assert not plan.is_done
        assert plan.counts().finished == k
        again = plan.next()
        assert again is not None
        assert (again.trial_id, again.values, again.role) == (
            victim.trial_id,
            victim.values,
            victim.role,
        )
        # It resumes from its checkpoint, which may be an epoch older than the last one stored.
        ended: PastTrial | None = None
        for epoch in range(max(1, num_epochs), EPOCHS + 1):
            if plan.report(again.trial_id, epoch, scores(again)[epoch - 1]).stop:
                ended = past(again, "PRUNED", scores(again)[:epoch])
                break
        plan.finish(again.trial_id, ended.state if ended else "COMPLETE")
        assert (ended or past(again, "COMPLETE", scores(again))) == victim
        assert continued(plan) == whole[k + 1 :]


def test_what_runs_at_the_kill_is_suggested_again_in_order_and_counts_once() -> None:
    plan = plan_of([], None, sampler="random")
    done = continued(plan, 4)
    running = [plan.next() for _ in range(3)]
    assert all(running)
    then = [plan.next() for _ in range(2)]
    rebuilt = plan_of(
        [*[past(s, "RUNNING", [0.1]) for s in reversed(running) if s], *done],
        None,
        sampler="random",
    )
    assert [rebuilt.next() for _ in range(5)] == [*running, *then]
    assert rebuilt.counts().planned == 25


def test_trials_that_run_side_by_side_rebuild_to_the_same_next_draw() -> None:
    plan = plan_of([], None)
    done = continued(plan, 14)
    running = [plan.next() for _ in range(3)]
    rebuilt = plan_of([*done, *[past(s, "RUNNING") for s in running if s]], None)
    assert [rebuilt.next() for _ in range(3)] == running
    assert rebuilt.next() == plan.next()


def test_a_trial_handed_out_but_never_stored_is_handed_out_again() -> None:
    plan = plan_of([], None, sampler="random")
    done = continued(plan, 5)
    lost, stored = plan.next(), plan.next()
    assert lost
    assert stored
    rebuilt = plan_of([*done, past(stored, "FAILED")], None, sampler="random")
    assert rebuilt.next() == lost
    following = rebuilt.next()
    assert following
    assert following.index == stored.index + 1


@pytest.mark.parametrize("state", ["COMPLETE", "PRUNED", "FAILED", "INFEASIBLE"])
def test_a_finished_trial_is_not_repeated_however_it_ended(state: str) -> None:
    plan = plan_of([], None)
    history = [past(s, state, [0.1] * 3) for s in iter(plan.next, None)]
    rebuilt = plan_of(history, None)
    assert rebuilt.next() is None
    assert rebuilt.is_done
    assert rebuilt.counts().finished == 25


def test_broken_scores_in_the_history_do_no_harm() -> None:
    plan = plan_of([], None)
    history = [
        past(s, "COMPLETE", [0.2, float("nan")]) for s in (plan.next() for _ in range(12)) if s
    ]
    rebuilt = plan_of(history, None)
    assert rebuilt.counts().failed == 12  # as a live trial that ends in NaN
    assert rebuilt.next() is not None


def test_the_space_may_grow_and_the_history_still_teaches() -> None:
    small = {"method.layers": {"subset": LAYERS[2:], "min": 1}}
    done = continued(plan_of([], small, sampler="random", early_stopping="none"), 4)
    grown = {
        "method.layers": {"subset": LAYERS, "min": 1},
        "method.reduction_ratio": {"choice": [8, 16]},
    }
    rebuilt = plan_of(done, grown)
    trials = rebuilt._study._optuna_study.get_trials()
    assert len(trials) == 3
    assert all(len(trial.params) == 5 for trial in trials)
    assert all(trial.params["method.reduction_ratio"] == 16 for trial in trials)


@pytest.mark.parametrize("seed", range(6))
def test_however_often_and_whenever_it_is_killed_every_trial_ends_once(seed: int) -> None:
    stored = killed_again_and_again(
        lambda history: plan_of(history, None), scores, random.Random(seed)
    )
    assert [row[0].index for row in sorted(stored.values(), key=lambda row: row[0].index)] == list(
        range(25)
    )
    assert all(state != "RUNNING" for _, state, _ in stored.values())
    assert len({str(row[0].values) for row in stored.values()}) == 25
    assert plan_of([past(*row) for row in stored.values()], None).next() is None
