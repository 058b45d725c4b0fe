"""Sentences on how far the gain of a best config can be trusted. No torch, no ray."""

from __future__ import annotations

from collections.abc import Set

from attnfd_ray.analysis.numbers import counted
from attnfd_ray.analysis.records import Lines, TrialLine
from attnfd_ray.analysis.seeds import config_of, same_config
from attnfd_ray.terms import TrialState


def note_on_seeds(num_best: int, num_baseline: int) -> str:
    """Return a sentence on the number of seeds of the best config and of the baseline."""
    if num_best == num_baseline == 1:
        return "1 seed each: not a measure of certainty."
    best = counted(num_best, "seed")
    baseline = counted(num_baseline, "seed")
    return f"Means over {best} of the best config and {baseline} of the baseline."


def note_on_differences(best: TrialLine, baseline: TrialLine) -> str:
    """Return sentences on other differences of the two: number of epochs, size of the student."""
    note = ""
    if best.epochs_total != baseline.epochs_total:
        note += (
            f" Different budgets: {best.epochs_total} epochs against the baseline's "
            f"{baseline.epochs_total}."
        )
    if not best.student_params or not baseline.student_params:
        return note
    if best.student_params != baseline.student_params:
        note += (
            f" Different students: {_millions(best.student_params)} parameters against the "
            f"baseline's {_millions(baseline.student_params)}, so part of the gain may come from "
            "size."
        )
    return note


def note_on_choice(tried: Lines, baseline_configs: Set[str]) -> str:
    """Return a sentence on how many trials each side was chosen from.

    They were chosen on the images that they are scored on.
    """
    ended = [line for line in tried if line.state is not TrialState.RUNNING]
    baselines = [line for line in ended if config_of(line) in baseline_configs]
    others = [line for line in ended if config_of(line) not in baseline_configs]
    num_full = sum(line.has_full_budget for line in others)
    num_full_baselines = sum(line.has_full_budget for line in baselines)
    if any(line.role == "baseline_trial" for line in ended):
        return (
            " Both were chosen on the images they are scored on, which flatters them: the best of "
            f"{counted(len(others), 'trial')} ({num_full} to their end), and the baseline tuned "
            f"over {len(baselines)} ({num_full_baselines})."
        )
    if num_full > 1:
        return (
            f" The best of {num_full} was chosen on the images it is scored on, which flatters it; "
            "the baseline is not tuned."
        )
    return ""


def note_on_lost_seeds(name: str, one: TrialLine, lines: Lines) -> str:
    """Return a sentence on the seeds of a config that failed or were stopped, or nothing.

    The mean of the config is over the other seeds.
    """
    same = same_config(one, lines)
    full = {line.seed for line in same if line.has_full_budget}
    lost = {
        line.seed: line
        for line in same
        if line.seed not in full and line.state is not TrialState.RUNNING
    }
    stopped = [line for line in lost.values() if line.state is TrialState.PRUNED]
    failed = [line for line in lost.values() if line.state is not TrialState.PRUNED]
    parts: list[str] = []
    if failed:
        kinds = sorted({line.failure_kind or "unknown" for line in failed})
        parts.append(f"{len(failed)} ended in {' and '.join(kinds)}")
    if stopped:
        parts.append(f"{len(stopped)} stopped early")
    if not parts:
        return ""
    num_seeds = len(full) + len(lost)
    return f" Of the {name}'s {num_seeds} seeds {', '.join(parts)}: its mean leaves them out."


def _millions(params: int) -> str:
    return f"{params / 1e6:.3g} M"
