"""The tables of a printed report. No torch, no ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from rich.table import Table

from attnfd_ray.analysis import numbers
from attnfd_ray.analysis.records import (
    ClassLine,
    ConfigLine,
    ConfirmedLine,
    FailureGroup,
    Front,
    TrialLine,
)
from attnfd_ray.analysis.seeds import config_of, shown_values
from attnfd_ray.config.types import SEED
from attnfd_ray.report.console import add_row, new_table
from attnfd_ray.report.headline import config_name
from attnfd_ray.terms import FailureKind, TrialState

_ROLES = {
    "baseline": "(baseline)",
    "baseline_trial": "(baseline)",
    "as_written": "(as written)",
    "run": "(train)",
    "confirm": "(confirm)",
}


def main_trials(lines: Mapping[str, TrialLine]) -> Table:
    """Return the table of teacher, baseline and best config, by these names."""
    columns = ["mIoU %", "Best at", "Last %"]
    has_test = any(line.test_miou is not None for line in lines.values())
    if has_test:
        columns.append("Test %")
    table = new_table(["", "Trial"], columns)
    for name, line in lines.items():
        cells = [
            numbers.percent(line.best_val_miou),
            numbers.of(line.best_epoch, line.epochs_total),
            numbers.percent(line.last_val_miou),
        ]
        if has_test:
            cells.append(numbers.percent(line.test_miou))
        add_row(table, name, line.trial_id, *cells)
    return table


def classes(lines: Iterable[ClassLine]) -> Table:
    """Return the table of the IoU of each class."""
    table = new_table(["Class"], ["teacher", "baseline", "best config"])
    for line in lines:
        add_row(
            table,
            line.name,
            numbers.percent(line.teacher),
            numbers.percent(line.baseline),
            numbers.percent(line.best),
        )
    return table


def configs(lines: Iterable[ConfigLine]) -> Table:
    """Return the table of configs over their seeds."""
    table = new_table(["Config"], ["Seeds", "mIoU %", "Gain, points"])
    for line in lines:
        add_row(table, *_over_seeds(line))
    return table


def confirmed(lines: Iterable[ConfirmedLine]) -> Table:
    """Return the table of configs over fresh seeds."""
    table = new_table(["Config"], ["Seeds", "mIoU %", "Gain, points"], ["Verdict"])
    for line in lines:
        add_row(table, *_over_seeds(line), line.verdict or numbers.NONE)
    return table


def ranking(lines: Iterable[TrialLine], with_seeds: Set[str]) -> Table:
    """Return the table of ranked trials; `with_seeds` are the configs that have several seeds."""
    table = new_table(["#", "Trial"], ["mIoU %", "Best at", "Wall"], ["Values"])
    for line in lines:
        add_row(
            table,
            str(line.rank),
            line.trial_id,
            numbers.percent(line.best_val_miou),
            numbers.of(line.best_epoch, line.epochs_total),
            numbers.duration(line.wall_s),
            _values(line, with_seeds),
        )
    return table


def pareto_front(front: Front) -> Table:
    """Return the table of a Pareto front."""
    has_latency = front.latency_protocol is not None
    has_seeds = max(front.num_seeds) > 1
    columns = ["mIoU %", "Params, M"]
    if has_seeds:
        columns.insert(0, "Seeds")
    if has_latency:
        columns.append("Latency, ms")
    table = new_table(["#", "Trial"], columns, ["Values"])
    for line, num_seeds in zip(front.lines, front.num_seeds, strict=True):
        cells = [numbers.percent(line.best_val_miou), _millions(line.student_params)]
        if has_seeds:
            cells.insert(0, str(num_seeds))
        if has_latency:
            cells.append(numbers.decimals(line.latency_ms, 2))
        add_row(table, str(line.rank), line.trial_id, *cells, _values(line, set()))
    return table


def unranked(lines: Iterable[TrialLine], with_seeds: Set[str]) -> Table:
    """Return the table of trials without their full budget."""
    table = new_table(["State", "Trial"], ["mIoU %", "Done", "Wall"], ["Values"])
    for line in lines:
        state = state_name(line.state)
        if line.failure_kind == FailureKind.INTERRUPTED:  # stopped by Ctrl-C, to be resumed
            state = "interrupted"
        add_row(
            table,
            state,
            line.trial_id,
            numbers.percent(line.best_val_miou),
            numbers.of(line.epochs_done, line.epochs_total),
            numbers.duration(line.wall_s),
            _values(line, with_seeds),
        )
    return table


def failures(groups: Iterable[FailureGroup]) -> Table:
    """Return the table of failures by kind, with the first line of the first message."""
    table = new_table(["Kind"], ["Trials"], ["First"])
    for group in groups:
        text = (group.first_text or numbers.NONE).strip()
        first_line, _, _ = text.partition("\n")
        add_row(table, group.kind, str(group.num_trials), f"{group.first_trial_id}: {first_line}")
    return table


def state_name(state: TrialState) -> str:
    """Return a state in words. A store cannot know whether a RUNNING trial still runs."""
    if state is TrialState.RUNNING:
        return "unfinished"
    return state.lower()


def _over_seeds(line: ConfigLine | ConfirmedLine) -> list[str]:
    """Return the cells of a config: name, number of seeds, score and gain."""
    method = line.method
    if line.is_baseline:
        method = "none (baseline)"
    score = line.best_val_miou
    gain = numbers.NONE
    if line.gain is not None:
        gain = numbers.interval(numbers.points(line.gain.mean), line.gain.half_width)
    return [
        config_name(method, line.values),
        str(score.num),
        numbers.interval(numbers.percent(score.mean), score.half_width),
        gain,
    ]


def _values(line: TrialLine, with_seeds: Set[str]) -> str:
    """Return role, values, the seed where the config has several, and the reason of a stop."""
    values = shown_values(line.values, as_written=line.role == "as_written")
    if config_of(line) in with_seeds or SEED in line.values:
        values[SEED] = line.seed
    words = [_ROLES.get(line.role, ""), numbers.assignments(values)]
    description = " ".join(word for word in words if word)
    return "; ".join(part for part in (description, line.stop_reason) if part)


def _millions(count: int | None) -> str:
    if count is None:
        return numbers.NONE
    return numbers.decimals(count / 1e6, 3)
