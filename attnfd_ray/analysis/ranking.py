"""Who did best, by one rule, and how far that is from the baseline. Only trials measured alike meet
here.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Sequence, Set
from statistics import fmean

from attnfd_ray.analysis.numbers import counted
from attnfd_ray.analysis.records import Gain, ProtocolReport, TrialLine
from attnfd_ray.analysis.seeds import by_seed, config_of, configs, lost_seeds, same_config
from attnfd_ray.analysis.trials import Row, config_of_row, measured
from attnfd_ray.store.rows import BASELINES, TrialState


def rank(lines: Sequence[TrialLine]) -> list[TrialLine]:
    """Return the trials that had their full budget, numbered in the order of `best_first`."""
    full = {line.trial_id: line for line in lines if line.full}
    ranked = best_first([vars(line) for line in full.values()])
    return [
        dataclasses.replace(full[row["trial_id"]], rank=place)
        for place, row in enumerate(ranked, start=1)
    ]


def best_first(rows: Sequence[Row]) -> list[Row]:
    """Return the trials that have a score, best first.

    The rule: a config is worth the mean of best_val_miou over its seeds, with one seed that score
    itself, so that it does not win by its luckiest of many. Of equals the trial with the higher
    score of its own leads, then the one with fewer parameters, then the earlier trial id.
    """
    scored = [row for row in rows if measured(row["best_val_miou"]) is not None]
    worth = worths(scored)
    scored.sort(key=lambda row: order(row["best_val_miou"], row["student_params"], row["trial_id"]))
    return sorted(scored, key=lambda row: -worth[config_of_row(row)])


def worths(scored: Sequence[Row]) -> dict[str, float]:
    """Return config -> mean score over its seeds; of a seed that ran twice the best counts."""
    seeds: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for row in scored:
        of_config, score = seeds[config_of_row(row)], row["best_val_miou"]
        of_config[row["seed"]] = max(score, of_config.get(row["seed"], score))
    return {config: fmean(found.values()) for config, found in seeds.items()}


def order(score: float | None, params: int | None, trial_id: str) -> tuple[float, float, str]:
    """Return what sorts trials by their own scores; those without a finite one come last."""
    lost = 1.0 if score is None or not math.isfinite(score) else -score
    return (lost, math.inf if params is None else params, trial_id)


def _order(line: TrialLine) -> tuple[float, float, str]:
    return order(line.best_val_miou, line.student_params, line.trial_id)


def compare(
    protocol: str | None, teacher: TrialLine | None, lines: Sequence[TrialLine]
) -> ProtocolReport:
    """Return the ranking of students measured by one protocol, its best config and the gain over
    the baseline.

    The baseline is the best of the student alone, as the file has it or tuned; the best config is
    none of these.
    """
    tried = [line for line in lines if line.role != "confirm"]
    ranked = rank(tried)
    # leaders run again say more of a config, but are no further tries at being the best
    pooled = [*ranked, *rank([line for line in lines if line.role == "confirm"])]
    baseline = next((line for line in ranked if line.role in BASELINES), None)
    alone = {config_of(line) for line in tried if line.role in BASELINES}
    best = next((line for line in ranked if config_of(line) not in alone), None)
    note = _note_on_choice(tried, alone)
    for name, line in (("best config", best), ("baseline", baseline)):
        note += lost_seeds(name, line, lines) if line else ""
    return ProtocolReport(
        protocol=protocol,
        teacher=teacher,
        baseline=baseline,
        best=best,
        gain=_gain(best, baseline, pooled, note) if best and baseline else None,
        configs=configs(pooled),
        ranked=ranked,
        others=sorted((line for line in lines if not line.full), key=_order),
    )


def _gain(best: TrialLine, baseline: TrialLine, pooled: Sequence[TrialLine], more: str) -> Gain:
    """Compare means over seeds, those of the leaders run again among them."""
    bests, baselines = (
        list(by_seed(same_config(line, pooled)).values()) for line in (best, baseline)
    )

    def difference(score: Callable[[TrialLine], float | None]) -> float | None:
        ours, theirs = [score(line) for line in bests], [score(line) for line in baselines]
        if None in ours or None in theirs:
            return None
        return fmean(value or 0.0 for value in ours) - fmean(value or 0.0 for value in theirs)

    at_best = difference(lambda line: line.best_val_miou)
    assert at_best is not None, "ranked trials have a score"
    return Gain(
        best_epoch_miou=at_best,
        last_epoch_miou=difference(lambda line: line.last_val_miou),
        num_seeds_best=len(bests),
        num_seeds_baseline=len(baselines),
        note=_note(best, baseline, len(bests), len(baselines), more),
    )


def _note(best: TrialLine, baseline: TrialLine, num_best: int, num_baseline: int, more: str) -> str:
    """Say what a difference is worth."""
    if num_best == num_baseline == 1:
        note = "1 seed each: not a measure of certainty."
    else:
        note = f"Means over {_seeds(num_best)} of the best config and {_seeds(num_baseline)} of the baseline."
    note += more
    if best.epochs_total != baseline.epochs_total:
        note += f" Unlike budgets: {best.epochs_total} epochs against the baseline's {baseline.epochs_total}."
    if (
        best.student_params
        and baseline.student_params
        and best.student_params != baseline.student_params
    ):
        sizes = [
            f"{line.student_params / 1e6:.3g} M" for line in (best, baseline) if line.student_params
        ]
        note += f" Unlike students: {sizes[0]} parameters against the baseline's {sizes[1]}, which is a gain of size too."
    return note


def _note_on_choice(tried: Sequence[TrialLine], alone: Set[str]) -> str:
    """Say of how many each side is the best; the images that chose it also scored it."""
    ended = [line for line in tried if line.state is not TrialState.RUNNING]
    sides = (
        [line for line in ended if config_of(line) not in alone],
        [line for line in ended if config_of(line) in alone],
    )
    (num_ours, num_theirs), (full_ours, full_theirs) = (
        map(len, sides),
        (sum(line.full for line in side) for side in sides),
    )
    if any(line.role == "baseline_trial" for line in ended):
        return (
            " Both were chosen on the images they are scored on, which flatters them: the best of "
            f"{counted(num_ours, 'trial')} ({full_ours} to their end), and the baseline tuned over "
            f"{num_theirs} ({full_theirs})."
        )
    if full_ours > 1:
        return (
            f" The best of {full_ours} was chosen on the images it is scored on, which flatters "
            "it; "
            "the baseline is not tuned."
        )
    return ""


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
