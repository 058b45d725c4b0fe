"""The leaders of a search over seeds it never used: which they are, what seeds those are, and what
holds.

A search crowns lucky seeds: what chose a leader is no evidence for it. So only fresh seeds count,
and only differences to the baseline on the same seed. With k leaders each difference has an
interval of 1 - 0.05 / k (Bonferroni), so that all k hold together with 95 %. With 5 seeds a single
leader that is better by 3 standard deviations of a run is told from the baseline 93 times in 100;
one of three leaders 73 times, and 95 times if it is better by 3 deviations of the difference
itself.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Literal

from attnfd_ray.analysis import ranking, trials
from attnfd_ray.analysis.records import Confirmation, ConfirmedLine, Estimate, TrialLine
from attnfd_ray.analysis.seeds import by_seed, estimate, shown_values
from attnfd_ray.analysis.trials import Row
from attnfd_ray.config.types import NUM_SEEDS
from attnfd_ray.errors import StoreError
from attnfd_ray.store.rows import BASELINES

# from the experiment's seed: far from the seeds that people, and searches over seeds, take
_OFFSET = 1_000_000
_DOUBT = 0.05  # that any of the intervals of the gains misses


def leaders(rows: Sequence[Row], *, search_id: str, top: int) -> list[TrialLine]:
    """Return a search's best baseline and, best first by the rule of `ranking.rank`, its `top` best
    other configs.

    Only trials that had their full budget and were measured like the baseline. Raises StoreError
    without any.
    """
    tried = [row for row in rows if row["search_id"] == search_id and row["role"] != "confirm"]
    baselines = _baselines(tried)
    if not baselines:
        raise StoreError(
            f"{search_id}: no finished baseline to compare with; `attnfd-ray tune` goes on with "
            "the search"
        )
    configs: dict[str | None, TrialLine] = {}
    for line in ranking.rank(
        [trials.line(row) for row in tried if row["protocol"] == baselines[0]["protocol"]]
    ):
        configs.setdefault(line.config_hash, line)  # the best of a config comes first and stays
    for config_hash in _alone(tried):
        configs.pop(config_hash, None)
    if not configs:
        raise StoreError(
            f"{search_id}: no config but the baseline was completed; `attnfd-ray tune` goes on "
            "with it"
        )
    return [trials.line(baselines[0]), *list(configs.values())[:top]]


def fresh_seeds(first: int, used: Set[int], count: int) -> list[int]:
    """Return the first `count` seeds from a fixed distance after `first` on that were not used."""
    seeds = (seed % NUM_SEEDS for seed in itertools.count(first + _OFFSET))
    return list(itertools.islice((seed for seed in seeds if seed not in used), count))


def confirmations(rows: Sequence[Row]) -> list[Confirmation]:
    """Return what came out for each search whose leaders were run again, the latest first."""
    latest: dict[str, datetime] = {}
    for row in rows:
        if row["role"] == "confirm":
            latest[row["search_id"]] = max(
                row["time_utc"], latest.get(row["search_id"], row["time_utc"])
            )
    searches = sorted(latest, key=latest.__getitem__, reverse=True)
    found = [
        _confirmation(search_id, [row for row in rows if row["search_id"] == search_id])
        for search_id in searches
    ]
    return [confirmation for confirmation in found if confirmation.lines]


def verdict(gain: Estimate | None) -> Literal["better", "worse", "tie"] | None:
    """Return what an interval says of a difference; None where there is no interval."""
    if gain is None or gain.half_width is None:
        return None
    if abs(gain.mean) <= gain.half_width:
        return "tie"
    return "better" if gain.mean > 0 else "worse"


def _confirmation(search_id: str, rows: Sequence[Row]) -> Confirmation:
    tried = [row for row in rows if row["role"] != "confirm"]
    used = {row["seed"] for row in tried}
    # a search that went on may have come to a seed that was fresh before
    again = [
        trials.line(row) for row in rows if row["role"] == "confirm" and row["seed"] not in used
    ]
    alone = _alone(tried)
    configs: defaultdict[str | None, list[TrialLine]] = defaultdict(list)
    for line in ranking.rank(again):
        configs[line.config_hash].append(line)
    num_leaders = len({line.config_hash for line in again} - {*alone})
    confidence = 1 - _DOUBT / max(1, num_leaders)
    # the best of those that were run again: a search that went on may have found a better baseline
    # since
    baseline = _scores(
        next((configs[config_hash] for config_hash in alone if config_hash in configs), [])
    )
    own = {row["config_hash"] for row in tried if row["role"] == "as_written"}
    lines = [
        _line(
            config,
            {} if config_hash in alone else baseline,
            confidence,
            is_baseline=config_hash in alone,
            as_written=config_hash in own,
        )
        for config_hash, config in configs.items()
    ]
    return Confirmation(
        search_id=search_id,
        num_tried=len({row["config_hash"] for row in tried} - {*alone, None}),
        num_leaders=num_leaders,
        num_seeds=max((line.best_val_miou.num for line in lines), default=0),
        num_missing=sum(not line.full for line in again),
        confidence=confidence,
        lines=sorted(lines, key=lambda line: (-line.best_val_miou.mean, str(line.values))),
    )


def _line(
    config: Sequence[TrialLine],
    baseline: Mapping[int, float],
    confidence: float,
    *,
    is_baseline: bool,
    as_written: bool,
) -> ConfirmedLine:
    scores = _scores(config)
    gains = [scores[seed] - baseline[seed] for seed in sorted(scores.keys() & baseline.keys())]
    gain = estimate(gains, confidence=confidence) if gains else None
    return ConfirmedLine(
        method=config[0].method,
        values=shown_values(config[0].values, as_written=as_written),
        is_baseline=is_baseline,
        best_val_miou=estimate(list(scores.values())),
        gain=gain,
        verdict=verdict(gain),
    )


def _scores(lines: Sequence[TrialLine]) -> dict[int, float]:
    return {
        seed: line.best_val_miou
        for seed, line in by_seed(lines).items()
        if line.best_val_miou is not None
    }


def _alone(tried: Sequence[Row]) -> list[str | None]:
    """Return the configs of the student alone: finished ones first, best first, then those that
    were stopped early.
    """
    return [
        row["config_hash"]
        for row in [*_baselines(tried), *(row for row in tried if row["role"] in BASELINES)]
    ]


def _baselines(tried: Sequence[Row]) -> list[Row]:
    """Return the search's own finished baselines, best first; without any its first student
    alone.
    """
    full = [row for row in tried if trials.line(row).full]
    own = {row["trial_id"]: row for row in full if row["role"] in BASELINES}
    if not own:
        alone = [row for row in full if row["method"] == "none"]
        return sorted(alone, key=lambda row: str(row["trial_id"]))[:1]
    protocol = own[min(own)]["protocol"]
    ranked = ranking.rank([trials.line(row) for row in own.values() if row["protocol"] == protocol])
    return [own[line.trial_id] for line in ranked]
