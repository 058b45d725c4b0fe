"""Measures the epochs that a search needs to find one of the best 5 % of its space.

python -m benchmarks.search_efficiency

Samplers and kinds of early stopping are compared. Nothing is trained: learning curves are
simulated, with noise that depends on the seed. A search may spend the epochs of 50 full trainings.
It has arrived when a trial of those 5 % is complete; one that was stopped early does not count.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial, Suggestion
from attnfd_ray.terms import State
from benchmarks.record import load, record

EPOCHS = 27
BUDGET = 50 * EPOCHS
BEST = 0.05  # share of the space
NUM_SEARCHES = {
    "even": 300,
    "crossing": 300,
    "misled": 300,
    "slow start": 20,  # enough: all searches arrive, or none
}
NOISE = 0.005  # of an epoch's val_miou, standard deviation
RATIO = 16  # the file's own
LAYERS = ["stage3", "stage4", "aspp", "decoder"]
SEARCH: dict[str, Any] = {
    "method.layers": {"subset": LAYERS, "min": 1},
    "method.reduction_ratio": {"choice": [4, 8, 16, 32]},
    "method.loss_weight": {"float": [0.01, 1000], "log": True},
    "optim.lr": {"float": [1e-4, 1], "log": True},
}
# an earlier search for a warm start: fewer layers, and narrower ranges without the best learning
# rates
EARLIER: dict[str, Any] = {
    "method.layers": {"subset": ["aspp", "decoder"], "min": 1},
    "method.loss_weight": {"float": [0.1, 100], "log": True},
    "optim.lr": {"float": [1e-4, 0.01], "log": True},
}

Values = Mapping[str, Any]
# -> (val_miou at the end of a long training, epochs to 63 % of it)
Landscape = Callable[[Values], tuple[float, float]]


def even(values: Values) -> tuple[float, float]:
    """Good and bad configurations learn at the same pace: curves hardly cross."""
    return _top(values), 5.0


def crossing(values: Values) -> tuple[float, float]:
    """The pace has little to do with the final score: curves cross."""
    num_layers = len(values["method.layers"])
    return _top(values), 3.0 + 6.0 * (num_layers - 1) / 3


def slow_start(values: Values) -> tuple[float, float]:
    """The hardest case: the higher the final score, the slower the pace."""
    top = _top(values)
    return top, 2.0 + 14.0 * max(0.0, top - 0.3) / 0.4


def elsewhere(values: Values) -> tuple[float, float]:
    """Other data: the best learning rate is a hundredth of ours, the best weight 30 times ours."""
    ours = {
        **values,
        "optim.lr": values["optim.lr"] * 100,
        "method.loss_weight": values["method.loss_weight"] / 30,
    }
    return _top(ours), 5.0


# name -> landscapes of the search, and of the earlier search of a warm start
LANDSCAPES: dict[str, tuple[Landscape, Landscape]] = {
    "even": (even, even),
    "crossing": (crossing, crossing),
    "slow start": (slow_start, slow_start),
    "misled": (even, elsewhere),
}


def _top(values: Values) -> float:
    """Return the final score: best at aspp + decoder, ratio 8, weight 3, lr 0.02.

    Weight and lr depend on each other.
    """
    weight = math.log10(values["method.loss_weight"] / 3)
    lr = math.log10(values["optim.lr"] / 0.02)
    top = 0.7 - 0.04 * len(set(values["method.layers"]) ^ {"aspp", "decoder"})
    top -= 0.02 * abs(math.log2(values.get("method.reduction_ratio", RATIO) / 8))
    return max(0.02, top - 0.03 * abs(weight) - 0.06 * abs(lr) - 0.03 * abs(weight + lr))


def score(landscape: Landscape, values: Values, epoch: int) -> float:
    """Return val_miou after an epoch, without noise."""
    top, pace = landscape(values)
    return top * (1 - math.exp(-epoch / pace))


class Way(NamedTuple):
    """A sampler with a kind of early stopping, with or without a warm start."""

    sampler: str
    early_stopping: str
    is_warm: bool = False

    def __str__(self) -> str:
        words = [self.sampler]
        if self.early_stopping != "none":
            words.append(self.early_stopping)
        if self.is_warm:
            words.append("warm start")
        return " + ".join(words)


RANDOM = Way("random", "none")
WAYS = [
    RANDOM,
    Way("tpe", "none"),
    Way("random", "asha"),
    Way("tpe", "asha"),
    Way("tpe", "hyperband"),
    Way("tpe", "median"),
    Way("tpe", "asha", is_warm=True),
]


def settings_of(
    way: Way, seed: int, search: Mapping[str, Any], trials: int = 1000
) -> ExperimentSettings:
    """Return the settings of a search; by default `trials` is more than the budget allows."""
    return ExperimentSettings.model_validate(
        {
            "experiment": "search-efficiency",
            "data": {"name": "camvid", "root": "/nowhere", "crop": [360, 360]},
            "teacher": {"backbone": "resnet50", "train": {"epochs": 1}},
            "student": {"backbone": "resnet18"},
            "method": {
                "name": "attnfd",
                "layers": ["stage4"],
                "reduction_ratio": RATIO,
                "loss_weight": 30.0,
            },
            "optim": {"lr": 0.001},
            "train": {"epochs": EPOCHS},
            "search": search,
            "tune": {
                "trials": trials,
                "sampler": way.sampler,
                "early_stopping": way.early_stopping,
                "seed": seed,
            },
        }
    )


def threshold(landscape: Landscape, num: int = 20_000) -> float:
    """Return the final val_miou that one in twenty random configurations reaches."""
    rng = random.Random(12345)
    finals = [score(landscape, _drawn(rng), EPOCHS) for _ in range(num)]
    return statistics.quantiles(finals, n=round(1 / BEST))[-1]


def _drawn(rng: random.Random) -> Values:
    """Return a uniformly random point of SEARCH."""
    layers = [layer for layer in LAYERS if rng.random() < 0.5]
    if not layers:
        return _drawn(rng)
    return {
        "method.layers": layers,
        "method.reduction_ratio": rng.choice([4, 8, 16, 32]),
        "method.loss_weight": 10 ** rng.uniform(-2, 3),
        "optim.lr": 10 ** rng.uniform(-4, 0),
    }


def run(
    plan: SearchPlan, suggestion: Suggestion, landscape: Landscape, noise: random.Random
) -> PastTrial:
    """Run a simulated trial to its end, and return it as the store would."""
    epochs: list[tuple[int, float]] = []
    state: State = "COMPLETE"
    for epoch in range(1, EPOCHS + 1):
        value = score(landscape, suggestion.values, epoch) + noise.gauss(0, NOISE)
        epochs.append((epoch, value))
        if plan.report(suggestion.trial_id, epoch, value).stop:
            state = "PRUNED"
            break
    plan.finish(suggestion.trial_id, state, value)
    return PastTrial(
        trial_id=suggestion.trial_id,
        role=suggestion.role,
        values=suggestion.values,
        state=state,
        epochs=epochs,
    )


def trials_of(plan: SearchPlan, landscape: Landscape, noise: random.Random) -> Iterator[PastTrial]:
    """Run trials one after another; the baseline, the same in every search, costs nothing here."""
    while (suggestion := plan.next()) is not None:
        if suggestion.role == "baseline":
            plan.finish(suggestion.trial_id, "COMPLETE", 0.3)
        else:
            yield run(plan, suggestion, landscape, noise)


def epochs_to_best(name: str, way: Way, seed: int, needed: float) -> int:
    """Return the epochs spent when the first trial of the best 5 % is complete, or the budget."""
    landscape, before = LANDSCAPES[name]
    noise = random.Random(seed)
    earlier: list[PastTrial] = []
    if way.is_warm:
        settings = settings_of(Way("tpe", "asha"), seed + 1000, EARLIER, trials=30)
        earlier_plan = SearchPlan(settings, search_id="before")
        earlier = list(trials_of(earlier_plan, before, noise))
    plan = SearchPlan(settings_of(way, seed, SEARCH), search_id="now", earlier=earlier)
    spent = 0
    for past in trials_of(plan, landscape, noise):
        spent += len(past.epochs)
        if spent >= BUDGET:
            break
        if past.state == "COMPLETE" and score(landscape, past.values, EPOCHS) >= needed:
            return spent
    return BUDGET


def table() -> Iterator[str]:
    """Yield the rows of a Markdown table."""
    yield "| landscape | way | epochs: median (quartiles) | of random | did not arrive |"
    yield "| --- | --- | --- | --- | --- |"
    for name, (landscape, before) in LANDSCAPES.items():
        needed = threshold(landscape)
        num_searches = NUM_SEARCHES[name]
        ways = WAYS
        if landscape is not before:  # only a warm start depends on the earlier search
            ways = [way for way in WAYS if way == RANDOM or way.is_warm]
        median_of_random = math.nan
        for way in ways:
            spent = [epochs_to_best(name, way, seed, needed) for seed in range(num_searches)]
            low, median, high = statistics.quantiles(spent, n=4)
            if way == RANDOM:
                median_of_random = median
            cells = [
                name,
                str(way),
                f"{median:.0f} ({low:.0f} to {high:.0f})",
                f"{median / median_of_random:.2f}",
                f"{spent.count(BUDGET)} of {num_searches}",
            ]
            yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and record."""
    load_before = load()
    lines = list(table())
    config = {
        "search": SEARCH,
        "earlier": EARLIER,
        "epochs": EPOCHS,
        "budget": BUDGET,
        "noise": NOISE,
    }
    record(
        "search_efficiency",
        lines,
        config=json.dumps(config, indent=1),
        seeds="0, 1, ... of search and noise, 1000 more for the earlier search",
        load_before=load_before,
    )


if __name__ == "__main__":
    main()
