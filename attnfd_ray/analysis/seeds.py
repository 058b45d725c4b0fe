"""Configs over their seeds: mean, 95 % interval, and gain over the baseline with the same seed.

No torch, no ray.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from attnfd_ray.analysis.records import ConfigLine, Estimate, Lines, TrialLine
from attnfd_ray.analysis.trials import config_of_row
from attnfd_ray.config.types import SEED
from attnfd_ray.terms import BASELINES


def configs(ranked: Lines) -> list[ConfigLine]:
    """Return one line per config, best mean first; empty where every config has a single seed.

    Gains are over the baseline that `_baseline_config` chooses.
    """
    by_config = _by_config(ranked)
    num_seeds = [len(by_seed(lines)) for lines in by_config.values()]
    if max(num_seeds, default=1) == 1:
        return []
    baseline = _baseline_config(by_config)
    config_lines: list[ConfigLine] = []
    for config, lines in by_config.items():
        baseline_seeds: dict[int, TrialLine] = {}
        if baseline is not None and baseline != config:
            baseline_seeds = by_seed(by_config[baseline])
        config_lines.append(_line(lines, baseline_seeds))
    return sorted(config_lines, key=lambda line: (-line.best_val_miou.mean, str(line.values)))


def same_config(one: TrialLine, ranked: Lines) -> list[TrialLine]:
    """Return the trials with the config of `one`, with any seed and role, in their order."""
    return [line for line in ranked if config_of(line) == config_of(one)]


def repeated(lines: Lines) -> set[str]:
    """Return the configs that have several seeds among these trials."""
    seeds: defaultdict[str, set[int]] = defaultdict(set)
    for line in lines:
        seeds[config_of(line)].add(line.seed)
    return {config for config in seeds if len(seeds[config]) > 1}


def config_of(line: TrialLine) -> str:
    """Return an id that the trials of one config share: the hash, else the trial's own id."""
    return config_of_row(vars(line))


def by_seed(ranked: Lines) -> dict[int, TrialLine]:
    """Return the best trial of each seed."""
    return {line.seed: line for line in reversed(ranked)}  # the best comes last and replaces others


def shown_values(values: Mapping[str, Any], *, as_written: bool) -> dict[str, Any]:
    """Return the values of a config without its seed; of the file's own method only the name."""
    shown = {name: value for name, value in values.items() if name != SEED}
    if as_written and isinstance(shown.get("method"), Mapping):
        shown["method"] = {"name": shown["method"]["name"]}
    return shown


def estimate(values: Sequence[float], *, confidence: float = 0.95) -> Estimate:
    """Return the mean of independent values with its interval by Student's t.

    A single value has no interval.

    >>> estimate([0.5, 0.7]).mean
    0.6
    """
    num = len(values)
    half_width = None
    if num > 1:
        quantile = float(stdtrit(num - 1, (1 + confidence) / 2))
        half_width = quantile * stdev(values) / math.sqrt(num)
    return Estimate(mean=fmean(values), half_width=half_width, num=num)


def _by_config(ranked: Lines) -> dict[str, list[TrialLine]]:
    by_config: dict[str, list[TrialLine]] = {}
    for line in ranked:
        by_config.setdefault(config_of(line), []).append(line)
    return by_config


def _baseline_config(by_config: Mapping[str, Lines]) -> str | None:
    """Return the config of the baseline: of several candidates the one with most seeds.

    Candidates are the best of a search's own baselines, and configs with method `none`. Ties: the
    search's own baseline.
    """
    own = [config for config, lines in by_config.items() if _has_own_baseline(lines)]
    # best first, as `ranked` is, so only the first of `own` is a candidate
    candidates = [
        config
        for config, lines in by_config.items()
        if _is_baseline(lines) and config not in own[1:]
    ]

    def weight(config: str) -> tuple[int, bool]:
        num_seeds = len(by_seed(by_config[config]))
        return num_seeds, config in own

    return max(candidates, key=weight, default=None)


def _line(lines: Lines, baseline: Mapping[int, TrialLine]) -> ConfigLine:
    # The trial whose values are the shortest stands for the config. The file's own method is
    # written out in full; a choice only has what differs. `none` names a baseline best.
    shortest = min(lines, key=lambda line: (line.method != "none", len(str(line.values))))
    as_written = any(line.role == "as_written" for line in lines)
    seeds = by_seed(lines)
    gain = None
    common_seeds = sorted(seeds.keys() & baseline.keys())
    if common_seeds:
        gains = [_score(seeds[seed]) - _score(baseline[seed]) for seed in common_seeds]
        gain = estimate(gains)
    return ConfigLine(
        method=shortest.method,
        values=shown_values(shortest.values, as_written=as_written),
        is_baseline=_is_baseline(lines),
        best_val_miou=estimate([_score(line) for line in seeds.values()]),
        gain=gain,
    )


def _is_baseline(lines: Lines) -> bool:
    """Return whether a config trains the student without a teacher."""
    return _has_own_baseline(lines) or any(line.method == "none" for line in lines)


def _has_own_baseline(lines: Lines) -> bool:
    """Return whether a config has a baseline that a search itself ran."""
    return any(line.role in BASELINES for line in lines)


def _score(line: TrialLine) -> float:
    assert line.best_val_miou is not None, "ranked trials have a score"
    return line.best_val_miou
