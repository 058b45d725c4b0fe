"""A search over simulated learning curves: sampler, early stopping and plan together."""

from __future__ import annotations

import math
from typing import Any

import pytest
from search_fakes import LAYERS, experiment

from attnfd_ray.search.plan import SearchPlan

EPOCHS = 27
SEARCH: dict[str, Any] = {
    "method.layers": {"subset": LAYERS, "min": 1},
    "method.reduction_ratio": {"choice": [4, 8, 16, 32]},
    "method.loss_weight": {"float": [0.01, 1000], "log": True},
    "optim.lr": {"float": [1e-4, 1], "log": True},
}


def curve(values: dict[str, Any], epoch: int) -> float:
    """Best at aspp + decoder, ratio 8, weight 3, lr 0.01; all curves have the same shape."""
    layers = set(values["method.layers"])
    top = (
        0.7
        - 0.05 * len(layers ^ {"aspp", "decoder"})
        - (0.0 if values["method.reduction_ratio"] == 8 else 0.03)
    )
    top -= 0.05 * abs(math.log10(values["method.loss_weight"] / 3)) + 0.08 * abs(
        math.log10(values["optim.lr"] / 0.01)
    )
    return top * (1 - math.exp(-epoch / 6))


def search(sampler: str, early_stopping: str, seed: int) -> tuple[float, int]:
    """Return the best score at the last epoch and the epochs spent on 60 trials."""
    settings = experiment(
        SEARCH,
        epochs=EPOCHS,
        trials=60,
        sampler=sampler,
        early_stopping=early_stopping,
        seed=seed,
        grace_epochs=1,
    )
    plan, best, spent = SearchPlan(settings, search_id="sim"), 0.0, 0
    plan.finish(plan.next().trial_id, "COMPLETE", 0.3)  # type: ignore[union-attr]
    while (suggestion := plan.next()) is not None:
        for epoch in range(1, EPOCHS + 1):
            spent += 1
            value = curve(suggestion.values, epoch)
            if plan.report(suggestion.trial_id, epoch, value).stop:
                plan.finish(suggestion.trial_id, "PRUNED")
                break
        else:
            plan.finish(suggestion.trial_id, "COMPLETE", value)
            best = max(best, value)
    return best, spent


@pytest.mark.slow
def test_tpe_with_asha_finds_at_least_what_random_search_finds_for_far_fewer_epochs() -> None:
    wins = 0
    for seed in range(10):
        best, spent = search("tpe", "asha", seed)
        random_best, random_spent = search("random", "none", seed)
        assert random_spent == 60 * EPOCHS
        assert spent < 0.4 * random_spent  # seen: 0.27 at most
        wins += best >= random_best
    assert wins >= 8  # seen: 30 of 30
