"""The leaders of a search, run again on seeds that the search never used. No torch, no ray.

The leader of a search has had lucky seeds, so the scores that made it the leader are no evidence
for it. Only fresh seeds count here, and only differences to the baseline with the same seed. With k
leaders each difference has an interval of 1 - 0.05 / k (Bonferroni), so that all k hold together
with 95 %.

Power with 5 seeds: for a single leader that is better by 3 standard deviations of a run, the
interval excludes 0 in 93 of 100 cases. For one of three leaders it does in 73 cases, and in 95
cases if the leader is better by 3 standard deviations of the difference.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Set
from datetime import datetime
from typing import Literal

from attnfd_ray.analysis import ranking, trials
from attnfd_ray.analysis.records import Confirmation, ConfirmedLine, Estimate, Lines, TrialLine
from attnfd_ray.analysis.seeds import by_seed, estimate, shown_values
from attnfd_ray.analysis.trials import Row, Rows
from attnfd_ray.config.types import NUM_SEEDS
from attnfd_ray.errors import StoreError
from attnfd_ray.terms import BASELINES

# from the experiment's seed: far from the seeds that people, and searches over seeds, take
_OFFSET = 1_000_000
_MAX_ERROR = 0.05  # chance that any of the gains is outside its interval


def leaders(rows: Rows, *, search_id: str, top: int) -> list[TrialLine]:
    """Return a search's best baseline and its `top` best other configs, best first.

    The order is that of `ranking.rank`. Only trials that had their full budget and were measured
    like the baseline count. Raises StoreError without a finished baseline or other config.
    """
    tried = [row for row in rows if row["search_id"] == search_id and row["role"] != "confirm"]
    baselines = _finished_baselines(tried)
    if not baselines:
        raise StoreError(
            f"{search_id}: no finished baseline to compare with; `attnfd-ray tune` resumes the "
            "search"
        )
    protocol = baselines[0]["protocol"]
    lines = [trials.line(row) for row in tried if row["protocol"] == protocol]
    best_of_config: dict[str | None, TrialLine] = {}
    for line in ranking.rank(lines):
        best_of_config.setdefault(line.config_hash, line)
    for config_hash in _baseline_configs(tried):
        best_of_config.pop(config_hash, None)
    if not best_of_config:
        raise StoreError(
            f"{search_id}: no config but the baseline was completed; `attnfd-ray tune` resumes "
            "the search"
        )
    return [trials.line(baselines[0]), *list(best_of_config.values())[:top]]


def fresh_seeds(first: int, used: Set[int], count: int) -> list[int]:
    """Return `count` unused seeds, from a fixed distance after seed `first` on."""
    seeds = (seed % NUM_SEEDS for seed in itertools.count(first + _OFFSET))
    unused = (seed for seed in seeds if seed not in used)
    return list(itertools.islice(unused, count))


def confirmations(rows: Rows) -> list[Confirmation]:
    """Return the result for each search whose leaders were run again, the latest first."""
    latest: dict[str, datetime] = {}
    for row in rows:
        if row["role"] == "confirm":
            search_id = row["search_id"]
            time_utc = row["time_utc"]
            latest[search_id] = max(time_utc, latest.get(search_id, time_utc))
    results: list[Confirmation] = []
    for search_id in sorted(latest, key=latest.__getitem__, reverse=True):
        of_search = [row for row in rows if row["search_id"] == search_id]
        result = _confirmation(search_id, of_search)
        if result.lines:
            results.append(result)
    return results


def verdict(gain: Estimate | None) -> Literal["better", "worse", "tie"] | None:
    """Return whether the interval of a gain excludes 0; None where there is no interval."""
    if gain is None or gain.half_width is None:
        return None
    if abs(gain.mean) <= gain.half_width:
        return "tie"
    if gain.mean > 0:
        return "better"
    return "worse"


def _confirmation(search_id: str, rows: Rows) -> Confirmation:
    tried = [row for row in rows if row["role"] != "confirm"]
    used_seeds = {row["seed"] for row in tried}
    # A search that was resumed may have used a seed that was fresh before.
    runs = [
        trials.line(row)
        for row in rows
        if row["role"] == "confirm" and row["seed"] not in used_seeds
    ]
    by_config: defaultdict[str | None, list[TrialLine]] = defaultdict(list)
    for line in ranking.rank(runs):
        by_config[line.config_hash].append(line)
    baseline_configs = _baseline_configs(tried)
    num_leaders = len({line.config_hash for line in runs} - {*baseline_configs})
    confidence = 1 - _MAX_ERROR / max(1, num_leaders)
    # The best of those that were run again: a resumed search may have found a better one since.
    confirmed_baselines = [by_config[name] for name in baseline_configs if name in by_config]
    baseline_scores: dict[int, float] = {}
    if confirmed_baselines:
        baseline_scores = _scores(confirmed_baselines[0])
    tried_configs = {row["config_hash"] for row in tried}
    as_written = {row["config_hash"] for row in tried if row["role"] == "as_written"}
    lines: list[ConfirmedLine] = []
    for config_hash, config in by_config.items():
        is_baseline = config_hash in baseline_configs
        compared_with = baseline_scores
        if is_baseline:
            compared_with = {}
        lines.append(
            _line(
                config,
                compared_with,
                confidence,
                is_baseline=is_baseline,
                as_written=config_hash in as_written,
            )
        )
    return Confirmation(
        search_id=search_id,
        num_tried=len(tried_configs - {*baseline_configs, None}),
        num_leaders=num_leaders,
        num_seeds=max((line.best_val_miou.num for line in lines), default=0),
        num_missing=sum(not line.has_full_budget for line in runs),
        confidence=confidence,
        lines=sorted(lines, key=lambda line: (-line.best_val_miou.mean, str(line.values))),
    )


def _line(
    config: Lines,
    baseline_scores: Mapping[int, float],
    confidence: float,
    *,
    is_baseline: bool,
    as_written: bool,
) -> ConfirmedLine:
    scores = _scores(config)
    common_seeds = sorted(scores.keys() & baseline_scores.keys())
    gain = None
    if common_seeds:
        gains = [scores[seed] - baseline_scores[seed] for seed in common_seeds]
        gain = estimate(gains, confidence=confidence)
    return ConfirmedLine(
        method=config[0].method,
        values=shown_values(config[0].values, as_written=as_written),
        is_baseline=is_baseline,
        best_val_miou=estimate(list(scores.values())),
        gain=gain,
        verdict=verdict(gain),
    )


def _scores(lines: Lines) -> dict[int, float]:
    """Return the best val_miou by seed."""
    return {
        seed: line.best_val_miou
        for seed, line in by_seed(lines).items()
        if line.best_val_miou is not None
    }


def _baseline_configs(tried: Rows) -> list[str | None]:
    """Return the baseline configs: finished ones first, best first, then those stopped early."""
    all_baselines = [row for row in tried if row["role"] in BASELINES]
    return [row["config_hash"] for row in (*_finished_baselines(tried), *all_baselines)]


def _finished_baselines(tried: Rows) -> list[Row]:
    """Return the search's finished baselines, best first.

    Without any, the first finished trial of method `none` stands in.
    """
    finished = [row for row in tried if trials.line(row).has_full_budget]
    own = {row["trial_id"]: row for row in finished if row["role"] in BASELINES}
    if not own:
        without_method = [row for row in finished if row["method"] == "none"]
        return sorted(without_method, key=lambda row: str(row["trial_id"]))[:1]
    protocol = own[min(own)]["protocol"]
    lines = [trials.line(row) for row in own.values() if row["protocol"] == protocol]
    return [own[line.trial_id] for line in ranking.rank(lines)]
