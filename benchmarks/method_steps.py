"""Measures a step of every method against a step of the student alone, in time and memory.

python -m benchmarks.method_steps
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor

from attnfd_ray import registry
from benchmarks.record import load, record
from benchmarks.steps import CONFIG, build_step, max_rss_mib, timed

NUM_PAIRS = 6
NUM_WARM_UP = 2
TIMEOUT_S = 300.0
# settings without a default
NEEDED = {
    "sum": {
        "terms": [
            {"name": "kd", "weight": 1.0},
            {"name": "cwd_feature", "weight": 50.0},
        ]
    }
}


def settings_of(name: str) -> dict[str, object]:
    """Return a method with its defaults."""
    return {"name": name, **NEEDED.get(name, {})}


def cost(name: str) -> tuple[float, float]:
    """Return (time of a step / the student's alone, peak memory in MiB) from a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_cost_here, name).result(timeout=TIMEOUT_S)


def _cost_here(name: str) -> tuple[float, float]:
    step = build_step(method=settings_of(name))
    for _ in range(NUM_WARM_UP):
        step()
    peak_mib = max_rss_mib()  # before the other networks are built
    alone = build_step(method={"name": "none"})
    for _ in range(NUM_WARM_UP):
        alone()
    ratios = [timed(step) / timed(alone) for _ in range(NUM_PAIRS)]
    return statistics.median(ratios), peak_mib


def main() -> None:
    """Measure all methods and record them, cheapest first."""
    load_before = load()
    costs = {name: cost(name) for name in registry.TABLES["method"]}
    _, alone_mib = costs["none"]
    lines = [
        "step of a method / of the student alone; both hold the teacher's weights",
        "time   memory  method",
    ]
    for name in sorted(costs, key=lambda name: costs[name][0]):
        ratio, peak_mib = costs[name]
        lines.append(f"{ratio:5.2f}  {peak_mib / alone_mib:6.2f}  {name}")
    record(
        "method_steps",
        lines,
        config=json.dumps(CONFIG, indent=1),
        seeds="1 for weights and batch",
        load_before=load_before,
    )


if __name__ == "__main__":
    main()
