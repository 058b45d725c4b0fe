"""Whether the demonstration gains what it says, honestly: all of it again on fresh scenes with
fresh weights.

    python -m benchmarks.demo [SEED ...]

Each seed is a whole `make demo`: other scenes, another teacher, other students. What counts is the
gain of the search's best config over the student alone on seeds that the search never used, as
`attnfd-ray confirm` measures it.
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
NEEDED = 4
MOST_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What one run of the demonstration came to; mIoU are fractions."""

    seed: int
    wall_s: float
    teacher: float
    least_class: float
    baseline: ConfirmedLine
    best: ConfirmedLine


def run(seed: int, directory: Path) -> Demo:
    """Run `make demo` with a seed of scenes and weights, and read what its store says."""
    store, scenes = directory / "store", directory / "scenes"
    command = ["make", "demo", f"SEED={seed}", f"STORE={store}", f"SCENES={scenes}"]
    start_s = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    wall_s = time.monotonic() - start_s
    shown = summarise(Store.open(store, create=False)).shown
    assert shown is not None
    return read(shown, seed=seed, wall_s=wall_s)


def read(shown: ExperimentReport, *, seed: int, wall_s: float) -> Demo:
    """Return what a report says of the leader that was run again, and of the baseline."""
    teacher, lines = shown.protocols[0].teacher, shown.confirmations[0].lines
    assert teacher is not None
    assert teacher.best_val_miou is not None
    return Demo(
        seed=seed,
        wall_s=wall_s,
        teacher=teacher.best_val_miou,
        least_class=min(line.teacher or 0.0 for line in shown.protocols[0].classes),
        baseline=next(line for line in lines if line.is_baseline),
        best=next(line for line in lines if not line.is_baseline),
    )


def table(demos: Sequence[Demo]) -> list[str]:
    """Return the rows of a Markdown table, and what they come to."""
    heads = (
        "seed",
        "wall",
        "teacher, %",
        "its least class, %",
        "student alone, %",
        "best config",
        "with it, %",
    )
    heads += ("gain, points", "verdict")
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for demo in demos:
        best, gain = demo.best, demo.best.gain
        assert gain is not None, "confirm runs both over the same seeds"
        cells = [
            str(demo.seed),
            numbers.duration(demo.wall_s),
            numbers.percent(demo.teacher),
            numbers.percent(demo.least_class),
            numbers.percent(demo.baseline.best_val_miou.mean),
            config_name(best.method, best.values),
            numbers.percent(best.best_val_miou.mean),
            numbers.interval(numbers.points(gain.mean), gain.half_width),
            best.verdict or numbers.NONE,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    won = sum(is_gain(demo) for demo in demos)
    return [
        *lines,
        "",
        f"the best config gains over fresh seeds in {won} of {len(demos)}; needed: {NEEDED} of 5",
    ]


def is_gain(demo: Demo) -> bool:
    """Return whether the mean over fresh seeds is above the student alone."""
    return demo.best.gain is not None and demo.best.gain.mean > 0


def main(seeds: Sequence[int]) -> int:
    """Run, record, and return 1 if too few gain, a teacher misses a class, or one takes too
    long.
    """
    load_before, demos = load(), list[Demo]()
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="attnfd-demo-") as directory:
            demos.append(run(seed, Path(directory)))
    config = (ROOT / "search_spaces" / "demo.yaml").read_text(encoding="utf-8")
    record(
        "demo",
        [*table(demos), f"limit: {numbers.duration(MOST_S)} each, no class of the teacher at 0"],
        config=config,
        seeds=f"{', '.join(map(str, seeds))} of scenes, teacher and students; fresh ones by "
        "confirm",
        load_before=load_before,
    )
    enough = 5 * sum(map(is_gain, demos)) >= NEEDED * len(demos)
    return int(not enough or any(demo.least_class == 0 or demo.wall_s > MOST_S for demo in demos))


if __name__ == "__main__":
    sys.exit(main([int(argument) for argument in sys.argv[1:]] or SEEDS))
