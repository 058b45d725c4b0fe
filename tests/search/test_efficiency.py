"""The benchmark of search efficiency, at a size for a test."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.search_efficiency import BUDGET, RANDOM, WAYS, Way, epochs_to_best, even, threshold

SEEDS = range(7)


def median_of(way: Way, needed: float) -> float:
    return statistics.median(epochs_to_best("even", way, seed, needed) for seed in SEEDS)


@pytest.mark.slow
def test_tpe_and_asha_with_a_warm_start_need_at_most_half_the_epochs_of_random_search() -> None:
    needed = threshold(even, num=2000)
    assert 0.5 < needed < 0.7
    warm = median_of(Way("tpe", "asha", is_warm=True), needed)
    assert 27 <= warm <= 0.5 * median_of(RANDOM, needed) < BUDGET  # seen: a tenth of 540


def test_every_way_names_itself() -> None:
    assert len({str(way) for way in WAYS}) == len(WAYS) == 7
    assert str(WAYS[-1]) == "tpe + asha + warm start"
