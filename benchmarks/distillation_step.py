"""Measures a distillation step against that of the released AttnFD code, in time and memory.

python -m benchmarks.distillation_step
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor

from benchmarks.record import load, record
from benchmarks.steps import CONFIG, build_step, max_rss_mib, timed

SECONDS_LIMIT = 0.45
MEMORY_LIMIT = 0.8
NUM_PAIRS = 24
NUM_WARM_UP = 2
TIMEOUT_S = 300.0


def seconds() -> list[tuple[float, float]]:
    """Return (ours, released) of each pair of steps.

    The two alternate, so that both meet the same state of the machine.
    """
    ours = build_step()
    released = build_step(released=True)
    for _ in range(NUM_WARM_UP):
        ours()
        released()
    return [(timed(ours), timed(released)) for _ in range(NUM_PAIRS)]


def peak_mib(*, released: bool) -> tuple[float, float]:
    """Return the peak memory of a new process: all of it, and what the steps added to it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_peak_mib_here, released).result(timeout=TIMEOUT_S)


def _peak_mib_here(released: bool) -> tuple[float, float]:
    step = build_step(released=released)
    built_mib = max_rss_mib()
    for _ in range(3):
        step()
    return max_rss_mib(), max_rss_mib() - built_mib


def main() -> int:
    """Measure, record, and return 1 if a limit is exceeded."""
    load_before = load()
    our_mib, our_added_mib = peak_mib(released=False)
    released_mib, released_added_mib = peak_mib(released=True)
    pairs = seconds()
    ours_s, released_s = zip(*pairs, strict=True)
    ratios = sorted(ours / released for ours, released in pairs)
    time_ratio = statistics.median(ratios)
    memory_ratio = our_mib / released_mib
    is_within_limits = time_ratio <= SECONDS_LIMIT and memory_ratio <= MEMORY_LIMIT
    kept = {True: "yes", False: "NO"}[is_within_limits]
    lines = [
        (
            f"step, s (median of {NUM_PAIRS}): ours {statistics.median(ours_s):.3f}, "
            f"released {statistics.median(released_s):.3f}"
        ),
        (
            f"time, ours / released (median of pairs, {ratios[0]:.3f} to {ratios[-1]:.3f}): "
            f"{time_ratio:.3f}, limit {SECONDS_LIMIT}"
        ),
        (
            f"fastest step, s: ours {min(ours_s):.3f}, released {min(released_s):.3f}, "
            f"ratio {min(ours_s) / min(released_s):.3f}"
        ),
        f"peak memory of the process, MiB: ours {our_mib:.0f}, released {released_mib:.0f}",
        f"peak memory, ours / released: {memory_ratio:.3f}, limit {MEMORY_LIMIT}",
        (
            f"of it added by the steps, MiB: ours {our_added_mib:.0f}, "
            f"released {released_added_mib:.0f}, ratio {our_added_mib / released_added_mib:.3f}"
        ),
        f"limits kept: {kept}",
    ]
    record(
        "distillation_step",
        lines,
        config=json.dumps(CONFIG, indent=1),
        seeds="1 for weights and batch",
        load_before=load_before,
    )
    return int(not is_within_limits)


if __name__ == "__main__":
    sys.exit(main())
