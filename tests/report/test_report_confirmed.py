"""Leaders over fresh seeds: their choice, the evidence, and how often the verdicts are right."""

import io

import numpy as np
import pytest
from rich.console import Console

from attnfd_ray.analysis import trials
from attnfd_ray.analysis.confirmation import fresh_seeds, leaders, verdict
from attnfd_ray.analysis.records import from_json, to_json
from attnfd_ray.analysis.seeds import estimate
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.errors import StoreError
from attnfd_ray.report.text import show
from attnfd_ray.terms import TrialState

SEEDS = [1_000_001, 1_000_002, 1_000_003]


@pytest.fixture
def searched(write):
    """A search of four configs: the luckiest was tried twice, and one was stopped."""
    write("b", 0.50, role="baseline", config_hash="base")
    write("w", 0.55, role="as_written", config_hash="written")
    write(
        "t1", 0.60, config_hash="lucky", values={"method.loss_weight": 2.0, "train.seed": 7}, seed=7
    )
    write("t2", 0.59, config_hash="lucky", values={"method.loss_weight": 2.0})
    write("t3", 0.57, config_hash="good", values={"method.loss_weight": 3.0})
    write("t4", 0.99, config_hash="cut", state=TrialState.PRUNED, epochs_done=10)
    return write


@pytest.fixture
def confirmed(searched):
    """Its two leaders and the baseline, run again.

    The lucky leader is no better than the baseline, and the good one is.
    """
    scores = {"base": [0.50, 0.52, 0.51], "lucky": [0.51, 0.51, 0.51], "good": [0.561, 0.58, 0.572]}
    for config, config_scores in scores.items():
        for seed, score in zip(SEEDS, config_scores, strict=True):
            values = (
                {}
                if config == "base"
                else {"method.loss_weight": {"lucky": 2.0, "good": 3.0}[config]}
            )
            searched(
                f"c-{config}-{seed}",
                score,
                role="confirm",
                config_hash=config,
                seed=seed,
                values=values,
            )
    return searched


def rows(write):
    return [
        trials.with_epochs(row, [])
        for row in write.store.trials(columns=trials.TRIAL_COLUMNS).to_pylist()
    ]


def confirmation(write):
    (found,) = summarise(write.store).shown.confirmations
    return found


def printed(write):
    console = Console(width=100, record=True, file=io.StringIO())
    show(summarise(write.store), console)
    return console.export_text()


# ---- the leaders


def test_the_leaders_are_the_baseline_and_the_best_configs_once_each(searched):
    assert [line.trial_id for line in leaders(rows(searched), search_id="s1", top=2)] == [
        "b",
        "t1",
        "t3",
    ]


def test_of_fewer_configs_than_asked_for_all_lead(searched):
    assert [line.trial_id for line in leaders(rows(searched), search_id="s1", top=9)] == [
        "b",
        "t1",
        "t3",
        "w",
    ]


def test_what_was_run_again_changes_no_leader(searched):
    before = leaders(rows(searched), search_id="s1", top=3)
    searched("c", 0.98, role="confirm", config_hash="written", seed=SEEDS[0])
    searched("other", 0.97, search_id="s2")
    assert leaders(rows(searched), search_id="s1", top=3) == before


def test_a_config_measured_differently_from_the_baseline_does_not_lead(searched):
    searched("t5", 0.9, protocol="val 1x1")
    assert "t5" not in [line.trial_id for line in leaders(rows(searched), search_id="s1", top=9)]


def test_the_method_none_stands_in_where_a_search_has_no_baseline(write):
    write("t0", 0.6, method="kd")
    write("t1", 0.5, method="none")
    assert [line.trial_id for line in leaders(rows(write), search_id="s1", top=1)] == ["t1", "t0"]


def test_a_search_without_a_finished_baseline_is_refused(write):
    write("b", 0.5, role="baseline", state=TrialState.PRUNED, epochs_done=3)
    write("t", 0.6)
    with pytest.raises(StoreError, match="s1: no finished baseline to compare with"):
        leaders(rows(write), search_id="s1", top=1)


def test_a_search_that_finished_nothing_but_its_baseline_is_refused(write):
    write("b", 0.5, role="baseline")
    with pytest.raises(StoreError, match="s1: no config but the baseline was completed"):
        leaders(rows(write), search_id="s1", top=1)


def test_fresh_seeds_are_always_the_same_and_more_of_them_add_to_the_first():
    assert fresh_seeds(1, set(), 3) == SEEDS
    assert fresh_seeds(1, set(), 2) == SEEDS[:2]


def test_a_seed_that_the_search_used_is_never_fresh_and_every_seed_is_one_that_settings_allow():
    assert fresh_seeds(1, {SEEDS[0]}, 2) == SEEDS[1:]
    assert fresh_seeds(2**31 - 1_000_001, set(), 2) == [2**31 - 1, 0]


# ---- the evidence


def test_only_fresh_seeds_count_and_differences_are_taken_seed_by_seed(confirmed):
    found = confirmation(confirmed)
    assert (found.search_id, found.num_tried, found.num_leaders, found.num_seeds) == ("s1", 4, 2, 3)
    good, second, third = found.lines
    assert {second.is_baseline, third.is_baseline} == {True, False}
    lucky = next(line for line in found.lines if line.values == {"method.loss_weight": 2.0})
    assert (lucky.best_val_miou.mean, lucky.best_val_miou.num) == (
        pytest.approx(0.51),
        3,
    )  # and not the lucky 0.60
    assert (lucky.gain.mean, lucky.verdict) == (pytest.approx(0.0), "tie")
    assert (good.gain.mean, good.gain.num, good.verdict) == (
        pytest.approx((0.061 + 0.06 + 0.062) / 3),
        3,
        "better",
    )


def test_two_leaders_are_compared_with_wider_intervals_than_one(confirmed):
    found = confirmation(confirmed)
    assert found.confidence == pytest.approx(0.975)
    # t(0.9875, 2 degrees of freedom) = 6.2053 in any table; the deviation of 61, 60, 62 is 1
    assert found.lines[0].gain.half_width == pytest.approx(6.2053 * 0.001 / 3**0.5, rel=1e-4)


def test_a_seed_that_the_search_came_to_later_counts_no_longer(confirmed):
    confirmed("t9", 0.4, seed=SEEDS[0])
    assert confirmation(confirmed).num_seeds == 2


def test_runs_that_failed_or_have_not_ended_are_left_out_and_counted(confirmed):
    confirmed("c-x", role="confirm", config_hash="good", seed=5, state=TrialState.FAILED)
    confirmed("c-y", role="confirm", config_hash="good", seed=6, state=TrialState.RUNNING)
    assert confirmation(confirmed).num_missing == 2
    assert "Left out, failed or not ended: 2 runs." in " ".join(printed(confirmed).split())


def test_confirmed_runs_are_in_the_means_over_seeds_but_not_in_the_ranking(searched, confirmed):
    (protocol,) = summarise(confirmed.store).shown.protocols
    assert [line.trial_id for line in protocol.ranked] == ["t1", "t2", "t3", "w", "b"]
    assert protocol.best.trial_id == "t1"
    assert {str(line.values): line.best_val_miou.num for line in protocol.configs}[
        "{'method.loss_weight': 2.0}"
    ] == 5
    assert (protocol.gain.num_seeds_best, protocol.gain.num_seeds_baseline) == (5, 4)
    assert "The best of 4 was chosen" in protocol.gain.note


def test_a_store_without_confirmed_runs_has_no_such_table(searched):
    assert summarise(searched.store).shown.confirmations == []
    assert "Confirmed" not in printed(searched)


def test_the_report_says_it_in_a_table_and_names_how_many_configs_were_tried(confirmed):
    text = printed(confirmed)
    assert "Confirmed: 2 leaders and the baseline over 3 fresh seeds\n" in text
    line = next(line for line in text.splitlines() if "better" in line)
    assert line.split() == [
        "attnfd",
        "loss_weight=3",
        "3",
        "57.10",
        "±",
        "2.37",
        "+6.10",
        "±",
        "0.36",
        "better",
    ]
    one_line = " ".join(text.split())
    assert "s1 tried 4 configs" in one_line
    assert "each with a 97.5 % interval, so that all 2 hold with 95 % (Bonferroni)" in one_line


def test_a_report_with_confirmed_leaders_survives_json(confirmed):
    report = summarise(confirmed.store)
    assert from_json(to_json(report)) == report


# ---- how often the verdicts are right, on draws of 5 seeds


def verdict_counts(difference_sd, *, leaders=1, shared=0.0):
    """Return how many of 100 comparisons are a tie, better and worse.

    Runs deviate by 1; `shared` is the part of the variance that a leader and the baseline have in
    common on a seed.
    """
    rng = np.random.default_rng(0)
    words = []
    for _ in range(100):
        common = rng.normal(scale=shared**0.5, size=5)
        alone, leader = common + rng.normal(scale=(1 - shared) ** 0.5, size=(2, 5))
        gains = (leader + difference_sd - alone).tolist()
        words.append(verdict(estimate(gains, confidence=1 - 0.05 / leaders)))
    return [words.count(word) for word in ("tie", "better", "worse")]


def test_two_configs_that_are_the_same_tie():
    assert verdict_counts(0.0)[0] >= 90
    assert verdict_counts(0.0, leaders=3)[0] >= 90


def test_a_difference_of_three_deviations_of_a_run_is_found():
    assert verdict_counts(3.0)[1] >= 90
    assert verdict_counts(-3.0)[2] >= 90


def test_a_difference_of_three_deviations_of_its_own_is_found_among_three_leaders_too():
    # the difference of two runs that share half of their variance deviates by 1
    assert verdict_counts(3.0, leaders=3, shared=0.5)[1] >= 90


def test_one_seed_decides_nothing():
    assert verdict(estimate([0.1])) is None
    assert verdict(None) is None
