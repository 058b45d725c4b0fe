"""Ranks trials by one rule and compares the best config with the baseline. No torch, no ray.

Only trials that were measured alike may be passed in together.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable
from statistics import fmean

from attnfd_ray.analysis.notes import (
    note_on_choice,
    note_on_differences,
    note_on_lost_seeds,
    note_on_seeds,
)
from attnfd_ray.analysis.records import Gain, Lines, ProtocolReport, TrialLine
from attnfd_ray.analysis.seeds import by_seed, config_of, configs, same_config
from attnfd_ray.analysis.trials import Row, Rows, config_of_row, measured
from attnfd_ray.terms import BASELINES

Score = Callable[[TrialLine], float | None]


def rank(lines: Lines) -> list[TrialLine]:
    """Return the trials that had their full budget, numbered in the order of `best_first`."""
    full = {line.trial_id: line for line in lines if line.has_full_budget}
    ranked = best_first([vars(line) for line in full.values()])
    return [
        dataclasses.replace(full[row["trial_id"]], rank=rank)
        for rank, row in enumerate(ranked, start=1)
    ]


def best_first(rows: Rows) -> list[Row]:
    """Return the trials that have a score, best first.

    A config's value is the mean of best_val_miou over its seeds, so that a config with many seeds
    does not win by its luckiest one. Ties: higher own score, then fewer parameters, then trial id.
    """
    scored = [row for row in rows if measured(row["best_val_miou"]) is not None]
    value_of = config_means(scored)
    scored.sort(key=_own_order)
    return sorted(scored, key=lambda row: -value_of[config_of_row(row)])


def config_means(scored: Rows) -> dict[str, float]:
    """Return config -> mean best_val_miou over its seeds; of a seed that ran twice the best."""
    seeds: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for row in scored:
        scores = seeds[config_of_row(row)]
        seed = row["seed"]
        score = row["best_val_miou"]
        scores[seed] = max(score, scores.get(seed, score))
    return {config: fmean(scores.values()) for config, scores in seeds.items()}


def order(score: float | None, params: int | None, trial_id: str) -> tuple[float, float, str]:
    """Return a sort key: higher score, fewer parameters, trial id; unknown numbers come last."""
    negative_score = 1.0
    if score is not None and math.isfinite(score):
        negative_score = -score
    size = math.inf
    if params is not None:
        size = params
    return (negative_score, size, trial_id)


def _own_order(row: Row) -> tuple[float, float, str]:
    return order(row["best_val_miou"], row["student_params"], row["trial_id"])


def compare(protocol: str | None, teacher: TrialLine | None, lines: Lines) -> ProtocolReport:
    """Return the ranking of students measured by one protocol, and the gain over the baseline.

    The baseline is the best trial of the student without its teacher, as the file has it or tuned.
    The best config is the best of the others.
    """
    tried = [line for line in lines if line.role != "confirm"]
    confirming = [line for line in lines if line.role == "confirm"]
    ranked = rank(tried)
    # Leaders that were run again add seeds to a config, but are not candidates for the best.
    pooled = [*ranked, *rank(confirming)]
    baseline_configs = {config_of(line) for line in tried if line.role in BASELINES}
    baselines = [line for line in ranked if line.role in BASELINES]
    others = [line for line in ranked if config_of(line) not in baseline_configs]
    baseline = _first(baselines)
    best = _first(others)
    gain = None
    if best is not None and baseline is not None:
        note = note_on_choice(tried, baseline_configs)
        note += note_on_lost_seeds("best config", best, lines)
        note += note_on_lost_seeds("baseline", baseline, lines)
        gain = _gain(best, baseline, pooled, note)
    unranked = [line for line in lines if not line.has_full_budget]
    unranked.sort(key=lambda line: _own_order(vars(line)))
    return ProtocolReport(
        protocol=protocol,
        teacher=teacher,
        baseline=baseline,
        best=best,
        gain=gain,
        configs=configs(pooled),
        ranked=ranked,
        others=unranked,
    )


def _first(lines: Lines) -> TrialLine | None:
    return next(iter(lines), None)


def _gain(best: TrialLine, baseline: TrialLine, pooled: Lines, note: str) -> Gain:
    """Compare means over seeds, including those of leaders that were run again."""
    ours = _one_per_seed(best, pooled)
    theirs = _one_per_seed(baseline, pooled)
    best_epoch_miou = _difference(ours, theirs, lambda line: line.best_val_miou)
    assert best_epoch_miou is not None, "ranked trials have a score"
    notes = [
        note_on_seeds(len(ours), len(theirs)),
        note,
        note_on_differences(best, baseline),
    ]
    return Gain(
        best_epoch_miou=best_epoch_miou,
        last_epoch_miou=_difference(ours, theirs, lambda line: line.last_val_miou),
        num_seeds_best=len(ours),
        num_seeds_baseline=len(theirs),
        note="".join(notes),
    )


def _one_per_seed(one: TrialLine, pooled: Lines) -> Lines:
    """Return the best trial of each seed with the config of `one`."""
    return list(by_seed(same_config(one, pooled)).values())


def _difference(ours: Lines, theirs: Lines, score: Score) -> float | None:
    """Return the difference of mean scores, or None where a trial has no score."""
    our_mean = _mean(ours, score)
    their_mean = _mean(theirs, score)
    if our_mean is None or their_mean is None:
        return None
    return our_mean - their_mean


def _mean(lines: Lines, score: Score) -> float | None:
    scores = [score(line) for line in lines]
    known = [value for value in scores if value is not None]
    if len(known) < len(scores):
        return None
    return fmean(known)
