"""How many epochs of training a search needs to find one of the best 5 % of its space, by sampler
and early stopping.

python -m benchmarks.search_efficiency

Nothing is trained: learning curves are made up, with noise from seed to seed. A search spends 50
full trainings' worth of epochs. It has arrived when a trial of those 5 % has run to its end, since
a trial stopped early is nobody's result.
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
from attnfd_ray.search.records import PastTrial, State, Suggestion
from benchmarks.record import load, record

EPOCHS, BUDGET, BEST = 27, 50 * 27, 0.05
NUM_SEARCHES = {
    "even": 300,
    "crossing": 300,
    "misled": 300,
    "slow start": 20,
}  # the last: all or none arrive
NOISE = 0.005  # of an epoch's val_miou, standard deviation
RATIO = 16  # the file's own
LAYERS = ["stage3", "stage4", "aspp", "decoder"]
SEARCH: dict[str, Any] = {
    "method.layers": {"subset": LAYERS, "min": 1},
    "method.reduction_ratio": {"choice": [4, 8, 16, 32]},
    "method.loss_weight": {"float": [0.01, 1000], "log": True},
    "optim.lr": {"float": [1e-4, 1], "log": True},
}
# the same search some time ago: fewer layers, narrower ranges, and without the best learning rates
EARLIER: dict[str, Any] = {
    "method.layers": {"subset": ["aspp", "decoder"], "min": 1},
    "method.loss_weight": {"float": [0.1, 100], "log": True},
    "optim.lr": {"float": [1e-4, 0.01], "log": True},
}

Values = Mapping[str, Any]
Landscape = Callable[
    [Values], tuple[float, float]
]  # -> (val_miou at the end of a long training, epochs to 63 % of it)


def even(values: Values) -> tuple[float, float]:
    """Good and bad learn alike fast: curves hardly cross."""
    return _top(values), 5.0


def crossing(values: Values) -> tuple[float, float]:
    """How fast one learns has little to do with how far one comes: curves cross."""
    return _top(values), 3.0 + 6.0 * (len(values["method.layers"]) - 1) / 3


def slow_start(values: Values) -> tuple[float, float]:
    """The unfriendly one: the better the end, the later it shows."""
    top = _top(values)
    return top, 2.0 + 14.0 * max(0.0, top - 0.3) / 0.4


def elsewhere(values: Values) -> tuple[float, float]:
    """What an earlier search found on other data: the best learning rate is a hundredth, the best
    weight 30 times.
    """
    lr, weight = values["optim.lr"] * 100, values["method.loss_weight"] / 30
    return _top({**values, "optim.lr": lr, "method.loss_weight": weight}), 5.0


# name -> what is searched, and what the earlier search of a warm start was about
LANDSCAPES: dict[str, tuple[Landscape, Landscape]] = {
    "even": (even, even),
    "crossing": (crossing, crossing),
    "slow start": (slow_start, slow_start),
    "misled": (even, elsewhere),
}


def _top(values: Values) -> float:
    """Best at aspp + decoder, ratio 8, weight 3, lr 0.02; weight and lr depend on each other."""
    weight, lr = math.log10(values["method.loss_weight"] / 3), math.log10(values["optim.lr"] / 0.02)
    top = 0.7 - 0.04 * len(set(values["method.layers"]) ^ {"aspp", "decoder"})
    top -= 0.02 * abs(math.log2(values.get("method.reduction_ratio", RATIO) / 8))
    return max(0.02, top - 0.03 * abs(weight) - 0.06 * abs(lr) - 0.03 * abs(weight + lr))


def score(landscape: Landscape, values: Values, epoch: int) -> float:
    """Return val_miou after an epoch, without noise."""
    top, pace = landscape(values)
    return top * (1 - math.exp(-epoch / pace))


class Way(NamedTuple):
    """A way to search."""

    sampler: str
    early_stopping: str
    is_warm: bool = False

    def __str__(self) -> str:
        stopping = "" if self.early_stopping == "none" else f" + {self.early_stopping}"
        return f"{self.sampler}{stopping}{' + warm start' if self.is_warm else ''}"


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
    """Return the search; `trials` is more than the budget of epochs allows."""
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
    """Return the final val_miou that one in twenty of random configurations has."""
    rng = random.Random(12345)
    finals = [score(landscape, _drawn(rng), EPOCHS) for _ in range(num)]
    return statistics.quantiles(finals, n=round(1 / BEST))[-1]


def _drawn(rng: random.Random) -> Values:
    """Return any point of SEARCH, each alike."""
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
    """Report a trial to its end, and return what the store would hold of it."""
    epochs: list[tuple[int, float]] = []
    stop = False
    while not stop and len(epochs) < EPOCHS:
        epoch = len(epochs) + 1
        epochs.append((epoch, score(landscape, suggestion.values, epoch) + noise.gauss(0, NOISE)))
        stop = plan.report(suggestion.trial_id, *epochs[-1]).stop
    state: State = "PRUNED" if stop else "COMPLETE"
    plan.finish(suggestion.trial_id, state, epochs[-1][1])
    return PastTrial(
        trial_id=suggestion.trial_id,
        role=suggestion.role,
        values=suggestion.values,
        state=state,
        epochs=epochs,
    )


def trials_of(plan: SearchPlan, landscape: Landscape, noise: random.Random) -> Iterator[PastTrial]:
    """Run trials one after another; the baseline, the same for every way, costs nothing here."""
    while (suggestion := plan.next()) is not None:
        if suggestion.role == "baseline":
            plan.finish(suggestion.trial_id, "COMPLETE", 0.3)
        else:
            yield run(plan, suggestion, landscape, noise)


def epochs_to_best(name: str, way: Way, seed: int, needed: float) -> int:
    """Return the epochs spent when the first trial of the best 5 % is complete; the budget if that
    does not happen.
    """
    landscape, before = LANDSCAPES[name]
    noise = random.Random(seed)
    earlier: list[PastTrial] = []
    if way.is_warm:
        plan = SearchPlan(
            settings_of(Way("tpe", "asha"), seed + 1000, EARLIER, trials=30), search_id="before"
        )
        earlier = list(trials_of(plan, before, noise))
    plan, spent = SearchPlan(settings_of(way, seed, SEARCH), search_id="now", earlier=earlier), 0
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
        needed, of_random, num = threshold(landscape), math.nan, NUM_SEARCHES[name]
        # the others know nothing of the earlier search
        for way in (
            WAYS if landscape is before else [way for way in WAYS if way == RANDOM or way.is_warm]
        ):
            spent = [epochs_to_best(name, way, seed, needed) for seed in range(num)]
            low, median, high = statistics.quantiles(spent, n=4)
            of_random = median if way == RANDOM else of_random
            figures = f"{median:.0f} ({low:.0f} to {high:.0f}) | {median / of_random:.2f} | {spent.count(BUDGET)} of {num}"
            yield f"| {name} | {way} | {figures} |"


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
