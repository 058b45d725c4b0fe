"""Configs over their seeds: mean, 95 % interval, and what they gain on the baseline, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from scipy.special import stdtrit

from attnfd_ray.report.records import ConfigLine, Estimate, TrialLine

SEED = "train.seed"


def configs(ranked: Sequence[TrialLine]) -> list[ConfigLine]:
    """Return one line per config, best mean first, or nothing where every config has a single seed.

    Equal hashes are one config; of trials with the same seed the best counts. The baseline is the student alone: the
    one with most seeds, if a search has it twice, as its own baseline and as the method `none`; of equals the former.
    """
    by_seed: dict[str, dict[int, TrialLine]] = {}
    for line in reversed(ranked):  # the best comes last and stays
        by_seed.setdefault(line.config_hash or line.trial_id, {})[line.seed] = line
    if all(len(seeds) == 1 for seeds in by_seed.values()):
        return []
    alone = [seeds for seeds in by_seed.values() if _is_baseline(next(iter(seeds.values())))]
    baseline = max(alone, key=_weight, default=None)
    lines = [_line(seeds, baseline) for seeds in by_seed.values()]
    return sorted(lines, key=lambda line: (-line.best_val_miou.mean, str(line.values)))


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of independent values with its 95 % interval by Student's t."""
    num = len(values)
    half_width = float(stdtrit(num - 1, 0.975)) * stdev(values) / math.sqrt(num) if num > 1 else None
    return Estimate(mean=fmean(values), half_width=half_width, num=num)


def _line(seeds: dict[int, TrialLine], baseline: dict[int, TrialLine] | None) -> ConfigLine:
    # a file's own method is written out whole, where a choice says only what differs
    first = min(seeds.values(), key=lambda line: len(str(line.values)))
    both = sorted(seeds.keys() & (baseline or {}).keys())
    gains = [_score(seeds[seed]) - _score(baseline[seed]) for seed in both] if baseline not in (None, seeds) else []
    return ConfigLine(
        method=first.method,
        values={name: value for name, value in first.values.items() if name != SEED},
        is_baseline=_is_baseline(first),
        best_val_miou=estimate([_score(line) for line in seeds.values()]),
        gain=estimate(gains) if gains else None,
    )


def _weight(seeds: dict[int, TrialLine]) -> tuple[int, bool]:
    return len(seeds), next(iter(seeds.values())).role == "baseline"


def _is_baseline(line: TrialLine) -> bool:
    return line.role == "baseline" or line.method == "none"


def _score(line: TrialLine) -> float:
    assert line.best_val_miou is not None, "ranked trials have a score"
    return line.best_val_miou
