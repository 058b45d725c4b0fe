"""What a step of every method costs beside a step of the student alone, in time and in memory.

python -m benchmarks.method_steps
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor

from attnfd_ray import registry
from benchmarks.record import load, record
from benchmarks.steps import EXPERIMENT, NUM_CLASSES, THREADS, build_step, max_rss_mib, timed

NUM_PAIRS, NUM_WARM_UP = 6, 2
TIMEOUT_S = 300.0
# what has no default that stands alone
TERMS = {"sum": [{"name": "kd", "weight": 1.0}, {"name": "cwd_feature", "weight": 50.0}]}


def settings_of(name: str) -> dict[str, object]:
    """Return a method by its defaults."""
    return {"name": name} | ({"terms": TERMS[name]} if name in TERMS else {})


def cost(name: str) -> tuple[float, float]:
    """Return (time of a step / the student's alone, peak memory in MiB), measured in a process of
    its own.
    """
    with ProcessPoolExecutor(
        max_workers=1, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        return pool.submit(_cost_here, name).result(timeout=TIMEOUT_S)


def _cost_here(name: str) -> tuple[float, float]:
    step = build_step(method=settings_of(name))
    for _ in range(NUM_WARM_UP):
        step()
    peak_mib = max_rss_mib()  # before the other networks are built
    alone = build_step(method={"name": "none"})
    for _ in range(NUM_WARM_UP):
        alone()
    return statistics.median(timed(step) / timed(alone) for _ in range(NUM_PAIRS)), peak_mib


def main() -> None:
    """Measure every method of the table and record it, cheapest first."""
    load_before = load()
    costs = {name: cost(name) for name in registry.TABLES["method"]}
    alone_mib = costs["none"][1]
    lines = [
        "step of a method / of the student alone; both hold the teacher's weights",
        "time   memory  method",
    ]
    for name, (ratio, peak_mib) in sorted(costs.items(), key=lambda item: item[1][0]):
        lines.append(f"{ratio:5.2f}  {peak_mib / alone_mib:6.2f}  {name}")
    config = {
        "experiment": EXPERIMENT,
        "num_classes": NUM_CLASSES,
        "threads": THREADS,
        "device": "cpu",
    }
    record(
        "method_steps",
        lines,
        config=json.dumps(config, indent=1),
        seeds="1 for weights and batch",
        load_before=load_before,
    )


if __name__ == "__main__":
    main()
