"""Measures the cost of a search without training: the plan's work per trial after 2,000 trials.

python -m benchmarks.search_overhead

It is the processor time of one process, which other processes affect less than wall time.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from typing import Any

from attnfd_ray.config.loader import dump_yaml
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.search.records import PastTrial, Suggestion
from attnfd_ray.terms import State
from benchmarks.record import load, record

MS_LIMIT = 50.0
NUM_TRIALS = 2000
NUM_LAST = 100
EPOCHS = 27
SEARCH: dict[str, Any] = {
    "method.layers": {
        "subset": ["stage1", "stage2", "stage3", "stage4", "aspp", "decoder"],
        "min": 1,
    },
    "method.reduction_ratio": {"choice": [4, 8, 16, 32]},
    "method.loss_weight": {"float": [0.01, 1000], "log": True},
    "method.norm": {"choice": ["image", "batch", "pixel"]},
    "optim.lr": {"float": [1e-4, 1], "log": True},
    "optim.momentum": {"float": [0.5, 0.99]},
    "optim.weight_decay": {"float": [1e-6, 1e-2], "log": True},
    "optim.poly_power": {"float": [0.5, 2]},
    "optim.head_lr_factor": {"float": [1, 20]},
    "train.batch_size": {"int": [8, 32], "step": 4},
}
SETTINGS = ExperimentSettings.model_validate(
    {
        "experiment": "search-overhead",
        "data": {"name": "camvid", "root": "/nowhere", "crop": [360, 360]},
        "teacher": {"backbone": "resnet50", "train": {"epochs": 1}},
        "student": {"backbone": "resnet18"},
        "method": {"name": "attnfd"},
        "train": {"epochs": EPOCHS},
        "search": SEARCH,
        "tune": {"trials": NUM_TRIALS + NUM_LAST, "sampler": "tpe", "early_stopping": "asha"},
    }
)


def curve(values: dict[str, Any], epoch: int) -> float:
    """Return a simulated val_miou.

    All curves have the same shape; the best is that of two layers, weight 3 and lr 0.01.
    """
    if not values:
        return 0.3  # the baseline
    top = 0.7 - 0.05 * len(set(values["method.layers"]) ^ {"aspp", "decoder"})
    weight = math.log10(values["method.loss_weight"] / 3)
    lr = math.log10(values["optim.lr"] / 0.01)
    top -= 0.05 * abs(weight) + 0.08 * abs(lr)
    return top * (1 - math.exp(-epoch / 6))


def run(plan: SearchPlan, suggestion: Suggestion) -> PastTrial:
    """Run a simulated trial to its end, and return it as the store would."""
    epochs: list[tuple[int, float]] = []
    state: State = "COMPLETE"
    for epoch in range(1, EPOCHS + 1):
        value = curve(suggestion.values, epoch)
        epochs.append((epoch, value))
        if plan.report(suggestion.trial_id, epoch, value).stop:
            state = "PRUNED"
            break
    plan.finish(suggestion.trial_id, state, value)
    plan.counts()  # as the progress display does after each trial
    return PastTrial(
        trial_id=suggestion.trial_id,
        role=suggestion.role,
        values=suggestion.values,
        state=state,
        epochs=epochs,
    )


def timed_trials(plan: SearchPlan) -> tuple[list[float], list[PastTrial]]:
    """Run the plan to its end; return the ms of each trial, and the trials as the store would."""
    times_ms: list[float] = []
    history: list[PastTrial] = []
    start_s = time.process_time()
    while (suggestion := plan.next()) is not None:
        history.append(run(plan, suggestion))
        now_s = time.process_time()
        times_ms.append(1000 * (now_s - start_s))
        start_s = now_s
    return times_ms, history


def main() -> int:
    """Measure, record, and return 1 if a limit is exceeded."""
    load_before = load()
    times_ms, history = timed_trials(SearchPlan(SETTINGS, search_id="bench"))
    start_s = time.process_time()
    SearchPlan(SETTINGS, search_id="bench", history=history[:NUM_TRIALS])
    rebuilt_ms = 1000 * (time.process_time() - start_s) / NUM_TRIALS
    last = times_ms[-NUM_LAST:]
    last_ms = statistics.median(last)
    mean_epochs = statistics.fmean(len(trial.epochs) for trial in history)
    lines = [f"a finished trial, {mean_epochs:.1f} epochs, takes:"]
    for count in (0, 500, 1000, 1500):
        next_ms = statistics.median(times_ms[count : count + NUM_LAST])
        lines.append(f"  {count:5d} trials: {next_ms:6.1f} ms")
    lines += [
        f"  {NUM_TRIALS:5d} trials: {last_ms:6.1f} ms (slowest of {NUM_LAST}: {max(last):.1f})",
        f"rebuilding a search of {NUM_TRIALS} trials: {rebuilt_ms:.1f} ms a trial",
        f"limit: {MS_LIMIT:.0f} ms, each",
    ]
    record(
        "search_overhead",
        lines,
        config=dump_yaml(SETTINGS),
        seeds="0 of the search",
        load_before=load_before,
    )
    return int(max(last_ms, rebuilt_ms) > MS_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
