"""Configs over their seeds: mean, 95 % interval, and what they gain on the baseline, seed by
seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from attnfd_ray.analysis.records import ConfigLine, Estimate, TrialLine
from attnfd_ray.analysis.trials import config_of_row
from attnfd_ray.config.types import SEED
from attnfd_ray.store.rows import BASELINES, TrialState


def configs(ranked: Sequence[TrialLine]) -> list[ConfigLine]:
    """Return one line per config, best mean first, or nothing where every config has a single seed.

    The baseline is the student alone, be it a search's own, of which the best counts, or the method
    `none`; of several, which differ in more than that, the one with most seeds, and of equals the
    search's own.
    """
    by_config: dict[str, list[TrialLine]] = {}
    for line in ranked:
        by_config.setdefault(config_of(line), []).append(line)
    seeds_of = {config: by_seed(lines) for config, lines in by_config.items()}
    if all(len(seeds) == 1 for seeds in seeds_of.values()):
        return []
    alone = [config for config, lines in by_config.items() if any(map(_is_alone, lines))]
    own = [
        config for config in alone if any(map(_is_own, by_config[config]))
    ]  # best first, as `ranked` is
    candidates = [config for config in alone if config not in own[1:]]
    baseline = max(candidates, key=lambda config: _weight(by_config[config]), default=None)
    found = [
        _line(
            lines,
            {} if baseline in (None, config) else seeds_of[baseline],
            is_baseline=config in alone,
        )
        for config, lines in by_config.items()
    ]
    return sorted(found, key=lambda line: (-line.best_val_miou.mean, str(line.values)))


def same_config(one: TrialLine, ranked: Sequence[TrialLine]) -> list[TrialLine]:
    """Return the trials of one's config, best first: those of its hash, whatever their seed and
    role.
    """
    return [line for line in ranked if config_of(line) == config_of(one)]


def lost_seeds(name: str, one: TrialLine, lines: Sequence[TrialLine]) -> str:
    """Return a sentence on the seeds that one's config did not survive, or nothing: a mean is over
    the others.
    """
    same = same_config(one, lines)
    full = {line.seed for line in same if line.full}
    lost = {
        line.seed: line
        for line in same
        if line.seed not in full and line.state is not TrialState.RUNNING
    }
    stopped = [line for line in lost.values() if line.state is TrialState.PRUNED]
    kinds = sorted(line.failure_kind or "unknown" for line in lost.values() if line not in stopped)
    parts = [f"{len(kinds)} ended in {' and '.join(dict.fromkeys(kinds))}"] if kinds else []
    parts += [f"{len(stopped)} stopped early"] if stopped else []
    if not parts:
        return ""
    return f" Of the {name}'s {len(full) + len(lost)} seeds {', '.join(parts)}: its mean leaves them out."


def repeated(lines: Sequence[TrialLine]) -> set[str]:
    """Return the configs that have several seeds among these."""
    runs = {(config_of(line), line.seed) for line in lines}
    return {config for config, count in Counter(config for config, _ in runs).items() if count > 1}


def config_of(line: TrialLine) -> str:
    """Return what the trials of one config share; without a hash a trial is a config of its own."""
    return config_of_row(vars(line))


def by_seed(lines: Sequence[TrialLine]) -> dict[int, TrialLine]:
    """Return one trial for each seed; of ranked ones with the same seed the best counts."""
    return {line.seed: line for line in reversed(lines)}  # the best comes last and stays


def shown_values(values: Mapping[str, Any], *, as_written: bool) -> dict[str, Any]:
    """Return what a config changes, without its seed; of the file's own method only the name."""
    shown = {name: value for name, value in values.items() if name != SEED}
    if as_written and isinstance(shown.get("method"), Mapping):
        shown["method"] = {"name": shown["method"]["name"]}
    return shown


def estimate(values: Sequence[float], *, confidence: float = 0.95) -> Estimate:
    """Return the mean of independent values with its interval, 95 % unless told otherwise, by
    Student's t.
    """
    num = len(values)
    half_width = (
        float(stdtrit(num - 1, (1 + confidence) / 2)) * stdev(values) / math.sqrt(num)
        if num > 1
        else None
    )
    return Estimate(mean=fmean(values), half_width=half_width, num=num)


def _line(
    lines: Sequence[TrialLine], baseline: Mapping[int, TrialLine], *, is_baseline: bool
) -> ConfigLine:
    # `none` says best what it is; a file's own method is written out whole, where a choice says
    # only what differs
    first = min(lines, key=lambda line: (line.method != "none", len(str(line.values))))
    seeds = by_seed(lines)
    gains = [
        _score(seeds[seed]) - _score(baseline[seed])
        for seed in sorted(seeds.keys() & baseline.keys())
    ]
    return ConfigLine(
        method=first.method,
        values=shown_values(
            first.values, as_written=any(line.role == "as_written" for line in lines)
        ),
        is_baseline=is_baseline,
        best_val_miou=estimate([_score(line) for line in seeds.values()]),
        gain=estimate(gains) if gains else None,
    )


def _weight(lines: Sequence[TrialLine]) -> tuple[int, bool]:
    return len(by_seed(lines)), any(map(_is_own, lines))


def _is_alone(line: TrialLine) -> bool:
    return _is_own(line) or line.method == "none"


def _is_own(line: TrialLine) -> bool:
    return line.role in BASELINES


def _score(line: TrialLine) -> float:
    assert line.best_val_miou is not None, "ranked trials have a score"
    return line.best_val_miou
