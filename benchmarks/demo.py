"""Checks the gain of the demonstration: runs it again with new scenes and new weights.

    python -m benchmarks.demo [SEED ...]

Each seed is a whole `make demo` with other scenes, another teacher and other students. The result
is the gain of the search's best config over the student alone on seeds that the search never used,
as `attnfd-ray confirm` measures it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnfd_ray.analysis import numbers
from attnfd_ray.analysis.records import ConfirmedLine, ExperimentReport
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.report.headline import config_name
from attnfd_ray.store.store import Store
from benchmarks.record import load, record

ROOT = Path(__file__).parents[1]
SEEDS = (101, 102, 103, 104, 105)  # never used while scenes, networks and budget were chosen
NEEDED = 4  # of 5
MAX_S = 300.0
_COLUMNS = (
    "seed",
    "wall",
    "teacher, %",
    "its least class, %",
    "student alone, %",
    "best config",
    "with it, %",
    "gain, points",
    "verdict",
)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The result of one run of the demonstration; mIoU and `least_class` are fractions."""

    seed: int
    wall_s: float
    teacher: float
    least_class: float
    baseline: ConfirmedLine
    best: ConfirmedLine


def run(seed: int, directory: Path) -> Demo:
    """Run `make demo` with a seed of scenes and weights, and return its result."""
    store = directory / "store"
    scenes = directory / "scenes"
    command = ["make", "demo", f"SEED={seed}", f"STORE={store}", f"SCENES={scenes}"]
    start_s = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    wall_s = time.monotonic() - start_s
    shown = summarise(Store.open(store, create=False)).shown
    assert shown is not None
    return read(shown, seed=seed, wall_s=wall_s)


def read(shown: ExperimentReport, *, seed: int, wall_s: float) -> Demo:
    """Return the result from the report on a demonstration."""
    protocol = shown.protocols[0]
    lines = shown.confirmations[0].lines
    assert protocol.teacher is not None
    assert protocol.teacher.best_val_miou is not None
    return Demo(
        seed=seed,
        wall_s=wall_s,
        teacher=protocol.teacher.best_val_miou,
        least_class=min(line.teacher or 0.0 for line in protocol.classes),
        baseline=next(line for line in lines if line.is_baseline),
        best=next(line for line in lines if not line.is_baseline),
    )


def table(demos: Sequence[Demo]) -> list[str]:
    """Return the rows of a Markdown table, and a summary."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{' --- |' * len(_COLUMNS)}"]
    for demo in demos:
        lines.append(f"| {' | '.join(_cells(demo))} |")
    num_gains = sum(is_gain(demo) for demo in demos)
    return [
        *lines,
        "",
        (
            f"the best config gains over fresh seeds in {num_gains} of {len(demos)}; "
            f"needed: {NEEDED} of 5"
        ),
    ]


def _cells(demo: Demo) -> list[str]:
    best = demo.best
    assert best.gain is not None, "confirm runs both over the same seeds"
    return [
        str(demo.seed),
        numbers.duration(demo.wall_s),
        numbers.percent(demo.teacher),
        numbers.percent(demo.least_class),
        numbers.percent(demo.baseline.best_val_miou.mean),
        config_name(best.method, best.values),
        numbers.percent(best.best_val_miou.mean),
        numbers.interval(numbers.points(best.gain.mean), best.gain.half_width),
        best.verdict or numbers.NONE,
    ]


def is_gain(demo: Demo) -> bool:
    """Return whether the mean over fresh seeds is above that of the student alone."""
    return demo.best.gain is not None and demo.best.gain.mean > 0


def main(seeds: Sequence[int]) -> int:
    """Run and record.

    Returns 1 if too few seeds gain, a teacher misses a class, or a run takes too long.
    """
    load_before = load()
    demos: list[Demo] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="attnfd-demo-") as directory:
            demos.append(run(seed, Path(directory)))
    config = (ROOT / "search_spaces" / "demo.yaml").read_text(encoding="utf-8")
    limit = f"limit: {numbers.duration(MAX_S)} each, no class of the teacher at 0"
    all_seeds = ", ".join(map(str, seeds))
    record(
        "demo",
        [*table(demos), limit],
        config=config,
        seeds=f"{all_seeds} of scenes, teacher and students; fresh ones by confirm",
        load_before=load_before,
    )
    is_enough = 5 * sum(map(is_gain, demos)) >= NEEDED * len(demos)
    is_within_limits = all(demo.least_class > 0 and demo.wall_s <= MAX_S for demo in demos)
    return int(not is_enough or not is_within_limits)


if __name__ == "__main__":
    sys.exit(main([int(argument) for argument in sys.argv[1:]] or SEEDS))
