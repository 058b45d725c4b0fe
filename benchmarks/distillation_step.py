"""What a distillation step costs beside the step of the released AttnFD code, in time and in
memory.

python -m benchmarks.distillation_step
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor

from benchmarks.record import load, record
from benchmarks.steps import EXPERIMENT, NUM_CLASSES, THREADS, build_step, max_rss_mib, timed

SECONDS_LIMIT, MEMORY_LIMIT = 0.45, 0.8
NUM_PAIRS, NUM_WARM_UP = 24, 2
TIMEOUT_S = 300.0


def seconds() -> list[tuple[float, float]]:
    """Return (ours, released) of each pair of steps, taken in turn so that both meet the same
    machine.
    """
    ours, released = build_step(), build_step(released=True)
    for _ in range(NUM_WARM_UP):
        ours()
        released()
    return [(timed(ours), timed(released)) for _ in range(NUM_PAIRS)]


def peak_mib(released: bool) -> tuple[float, float]:
    """Return the most memory of a fresh process: all of it, and what the steps added to the built
    networks.
    """
    with ProcessPoolExecutor(
        max_workers=1, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        return pool.submit(_peak_mib_here, released).result(timeout=TIMEOUT_S)


def _peak_mib_here(released: bool) -> tuple[float, float]:
    step = build_step(released=released)
    built_mib = max_rss_mib()
    for _ in range(3):
        step()
    return max_rss_mib(), max_rss_mib() - built_mib


def main() -> int:
    """Measure, record, and return 1 if a limit is not kept."""
    load_before = load()
    whole, added = zip(*(peak_mib(released) for released in (False, True)), strict=True)
    pairs = seconds()
    ours_s, released_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(ours / released for ours, released in pairs)
    time_ratio, memory_ratio = statistics.median(ratios), whole[0] / whole[1]
    kept = time_ratio <= SECONDS_LIMIT and memory_ratio <= MEMORY_LIMIT
    fastest = [min(side) for side in zip(*pairs, strict=True)]
    time_range = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
    lines = [
        f"step, s (median of {NUM_PAIRS}): ours {ours_s:.3f}, released {released_s:.3f}",
        (
            f"time, ours / released (median of pairs, {time_range}): {time_ratio:.3f}, limit "
            f"{SECONDS_LIMIT}"
        ),
        (
            f"fastest step, s: ours {fastest[0]:.3f}, released {fastest[1]:.3f}, ratio "
            f"{fastest[0] / fastest[1]:.3f}"
        ),
        f"peak memory of the process, MiB: ours {whole[0]:.0f}, released {whole[1]:.0f}",
        f"peak memory, ours / released: {memory_ratio:.3f}, limit {MEMORY_LIMIT}",
        (
            f"of it added by the steps, MiB: ours {added[0]:.0f}, released {added[1]:.0f}, ratio "
            f"{added[0] / added[1]:.3f}"
        ),
        f"limits kept: {'yes' if kept else 'NO'}",
    ]
    config = {
        "experiment": EXPERIMENT,
        "num_classes": NUM_CLASSES,
        "threads": THREADS,
        "device": "cpu",
    }
    record(
        "distillation_step",
        lines,
        config=json.dumps(config, indent=1),
        seeds="1 for weights and batch",
        load_before=load_before,
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
