"""A report on a console, at 80 columns and in pipes too. Prints nothing but what it is handed a console for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from attnfd_ray.config.values import SEED
from attnfd_ray.report import numbers
from attnfd_ray.report.records import (
    ClassLine,
    ConfigLine,
    Confirmation,
    ConfirmedLine,
    Cost,
    ExperimentLine,
    ExperimentReport,
    FailureGroup,
    Front,
    Gain,
    ProtocolReport,
    Report,
    TrialLine,
)
from attnfd_ray.report.seeds import config_of, lost_seeds, repeated
from attnfd_ray.store.rows import TrialState

_LABELS = {
    "baseline": "(baseline)",
    "baseline_trial": "(baseline)",
    "as_written": "(as written)",
    "run": "(train)",
    "confirm": "(confirm)",
}


def show(report: Report, console: Console) -> None:
    """Print a report."""
    if report.shown is None:
        _say(console, f"{report.store}: no trials yet; `attnfd-ray train` or `tune` with this store adds some")
        return
    _experiment(report.shown, console)
    if report.others:
        _title(console, "Also in this store (--experiment NAME shows one)")
        for other in report.others:
            _say(console, _other(other), indent=2)


def _experiment(shown: ExperimentReport, console: Console) -> None:
    _say(console, shown.experiment, style="bold")
    _say(console, f"{', '.join(shown.methods)}; {_states(shown.num_trials)}", indent=2)
    _say(console, _cost(shown.cost), indent=2)
    for protocol in shown.protocols:
        _protocol(protocol, console)
    for confirmation in shown.confirmations:
        show_confirmation(confirmation, console)
    if shown.failures:
        _title(console, "Failures")
        _print(console, _failures(shown.failures))
    if shown.best_command:
        _title(console, "Run the best config again")
        # one line whatever its length: it is there to be copied
        console.print(Text(f"  {shown.best_command}"), soft_wrap=True)


def _protocol(report: ProtocolReport, console: Console) -> None:
    _title(console, f"Protocol: {report.protocol}" if report.protocol else "No score yet")
    heads = [("teacher", report.teacher), ("baseline", report.baseline), ("best config", report.best)]
    if any(line for _, line in heads):
        _print(console, _heads([(name, line) for name, line in heads if line]))
    if report.gain:
        console.print()
        _say(console, _gain(report.gain), indent=2)
    elif report.best:
        lost = lost_seeds("best config", report.best, [*report.ranked, *report.others])
        _say(console, f"There is no finished baseline to compare with.{lost}", indent=2)
    if report.classes:
        _title(console, "IoU % of each class, at the best epoch")
        _print(console, _classes(report.classes))
    if report.configs:
        _title(console, "Over seeds of complete trials (mean, 95 % interval; gains seed by seed)")
        _print(console, _configs(report.configs))
    several = repeated([*report.ranked, *report.others])
    for front in report.fronts:
        _title(console, f"Front: {_counted_front(front)}")
        _print(console, _front(front))
        console.print()
        _say(console, _how_to_use(front), indent=2)
    if report.ranked:
        _title(console, "Ranking (complete, full budget)")
        _print(console, _ranking(report.ranked, several))
    if report.others:
        if report.protocol:
            _title(console, "Not ranked")
        _print(console, _unranked(report.others, several))


def show_confirmation(confirmation: Confirmation, console: Console) -> None:
    """Print what holds of a search's leaders over fresh seeds."""
    leaders = numbers.counted(confirmation.num_leaders, "leader")
    seeds = numbers.counted(confirmation.num_seeds, "fresh seed")
    _title(console, f"Confirmed: {leaders} and the baseline over {seeds}")
    _print(console, _confirmed(confirmation.lines))
    console.print()
    _say(console, _what_it_is_worth(confirmation), indent=2)


def _what_it_is_worth(confirmation: Confirmation) -> str:
    tried = numbers.counted(confirmation.num_tried, "config")
    together = f", so that all {confirmation.num_leaders} hold with 95 % (Bonferroni)"
    interval = f"{100 * confirmation.confidence:.4g} % interval{together if confirmation.num_leaders > 1 else ''}"
    parts = [
        f"{confirmation.search_id} tried {tried}, so its best was lucky too; only seeds that it never used count here.",
        f"Gains are seed by seed, each with a {interval}; tie: it contains 0. mIoU with 95 % intervals.",
    ]
    if confirmation.num_missing:
        parts.append(f"Left out, failed or not ended: {numbers.counted(confirmation.num_missing, 'run')}.")
    return " ".join(parts)


def _heads(heads: Sequence[tuple[str, TrialLine]]) -> Table:
    tested = any(line.test_miou is not None for _, line in heads)
    table = _table(["", "Trial"], ["mIoU %", "Best at", "Last %", *(["Test %"] if tested else [])])
    for name, line in heads:
        at = numbers.of(line.best_epoch, line.epochs_total)
        cells = [numbers.percent(line.best_val_miou), at, numbers.percent(line.last_val_miou)]
        _row(table, name, line.trial_id, *cells, *([numbers.percent(line.test_miou)] if tested else []))
    return table


def _classes(lines: Iterable[ClassLine]) -> Table:
    table = _table(["Class"], ["teacher", "baseline", "best config"])
    for line in lines:
        _row(table, line.name, *(numbers.percent(iou) for iou in (line.teacher, line.baseline, line.best)))
    return table


def _configs(configs: Iterable[ConfigLine]) -> Table:
    table = _table(["Config"], ["Seeds", "mIoU %", "Gain, points"])
    for line in configs:
        _row(table, *_over_seeds(line))
    return table


def _confirmed(lines: Iterable[ConfirmedLine]) -> Table:
    table = _table(["Config"], ["Seeds", "mIoU %", "Gain, points"], ["Verdict"])
    for line in lines:
        _row(table, *_over_seeds(line), line.verdict or numbers.NONE)
    return table


def _over_seeds(line: ConfigLine | ConfirmedLine) -> list[str]:
    """Return a config's name, number of seeds, score and gain."""
    method = "none (baseline)" if line.is_baseline else line.method
    name = " ".join(part for part in (method, numbers.assignments(_without_method(line.values))) if part)
    score, gain = line.best_val_miou, line.gain
    gained = numbers.NONE if gain is None else numbers.interval(numbers.points(gain.mean), gain.half_width)
    return [name, str(score.num), numbers.interval(numbers.percent(score.mean), score.half_width), gained]


def _without_method(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, with those of a searched method in the method's place."""
    rest = dict(values)
    method = rest.pop("method", None)
    return rest | {name: value for name, value in (method or {}).items() if name != "name"}


def _ranking(ranked: Iterable[TrialLine], several: Set[str]) -> Table:
    table = _table(["#", "Trial"], ["mIoU %", "Best at", "Wall"], ["Values"])
    for line in ranked:
        at = numbers.of(line.best_epoch, line.epochs_total)
        score, wall = numbers.percent(line.best_val_miou), numbers.duration(line.wall_s)
        _row(table, str(line.rank), line.trial_id, score, at, wall, _values(line, several))
    return table


def _counted_front(front: Front) -> str:
    metrics = f"{', '.join(front.metrics[:-1])} and {front.metrics[-1]}"
    return f"{numbers.counted(len(front.lines), 'config')} not dominated in {metrics}, {front.num_dominated} dominated"


def _front(front: Front) -> Table:
    timed, repeated = front.latency_protocol is not None, max(front.num_seeds) > 1
    table = _table(
        ["#", "Trial"],
        [*(["Seeds"] if repeated else []), "mIoU %", "Params, M", *(["Latency, ms"] if timed else [])],
        ["Values"],
    )
    for line, num_seeds in zip(front.lines, front.num_seeds, strict=True):
        latency = [numbers.decimals(line.latency_ms, 2)] if timed else []
        params = None if line.student_params is None else line.student_params / 1e6
        seeds = [str(num_seeds)] if repeated else []
        cells = [*seeds, numbers.percent(line.best_val_miou), numbers.decimals(params, 3), *latency]
        _row(table, str(line.rank), line.trial_id, *cells, _values(line, set()))
    return table


def _how_to_use(front: Front) -> str:
    timed = ""
    if front.latency_protocol:
        timed = (
            f"Latency of one image, {front.latency_protocol}; trials that ran beside it on the same machine slow it: "
            "compare those of tune.concurrent: 1. "
        )
    means = "Means over the seeds of a config, of which the best is named. " if max(front.num_seeds) > 1 else ""
    return f"{means}{timed}Settings of any: attnfd-ray report --best-config FILE --trial TRIAL."


def _unranked(others: Iterable[TrialLine], several: Set[str]) -> Table:
    table = _table(["State", "Trial"], ["mIoU %", "Done", "Wall"], ["Values"])
    for line in others:
        done = numbers.of(line.epochs_done, line.epochs_total)
        score, wall = numbers.percent(line.best_val_miou), numbers.duration(line.wall_s)
        # a trial that Ctrl-C stopped is still to be done, but nobody is at it
        state = "interrupted" if line.failure_kind == "INTERRUPTED" else _state(line.state)
        _row(table, state, line.trial_id, score, done, wall, _values(line, several))
    return table


def _failures(failures: Iterable[FailureGroup]) -> Table:
    table = _table(["Kind"], ["Trials"], ["First"])
    for group in failures:
        text = (group.first_text or numbers.NONE).strip().partition("\n")[0]
        _row(table, group.kind, str(group.num_trials), f"{group.first_trial_id}: {text}")
    return table


def _values(line: TrialLine, several: Set[str]) -> str:
    """Return role, values, the seed where the config has several, and why the trial was stopped."""
    values = line.values | ({SEED: line.seed} if config_of(line) in several else {})
    what = " ".join(part for part in (_LABELS.get(line.role, ""), numbers.assignments(values)) if part)
    return "; ".join(part for part in (what, line.stop_reason) if part)


def _state(state: TrialState) -> str:
    """Return a state in words; whether anybody is at a RUNNING one, a store cannot know."""
    return "unfinished" if state is TrialState.RUNNING else state.lower()


def _states(counts: Mapping[TrialState, int]) -> str:
    total = sum(counts.values())
    states = ", ".join(f"{count} {_state(state)}" for state, count in counts.items())
    return f"{numbers.counted(total, 'trial')}: {states}"


def _cost(cost: Cost) -> str:
    parts = [f"{numbers.duration(cost.wall_s)} in all"]
    if cost.images_per_s_median is not None:
        parts.append(f"{cost.images_per_s_median:.1f} images/s (median)")
    if cost.peak_mem_mib is not None:
        parts.append(f"{cost.peak_mem_mib:.0f} MiB at the peak")
    return ", ".join(parts)


def _other(line: ExperimentLine) -> str:
    return f"{line.experiment}: {_states(line.num_trials)}; last {line.time_utc:%Y-%m-%d %H:%M} UTC"


def _gain(gain: Gain) -> str:
    best, last = numbers.points(gain.best_epoch_miou), numbers.points(gain.last_epoch_miou)
    verdict = "" if gain.best_epoch_miou > 0 else "No config did better than the baseline. "
    return f"{verdict}Gain over the baseline: {best} points, {last} at the last epoch. {gain.note}"


def _table(*columns: Sequence[str]) -> Table:
    """Return an empty table: the second group of columns holds numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for group, names in enumerate(columns):
        for name in names:
            number = group == 1
            table.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    # Text, since a value such as [stage4] would pass for markup
    table.add_row(*(Text(cell) for cell in cells))


def _title(console: Console, text: str) -> None:
    console.print()
    _say(console, text, style="bold")


def _say(console: Console, text: str, *, style: str = "", indent: int = 0) -> None:
    console.print(Padding(Text(text, style=style), (0, 0, 0, indent), expand=False))


def _print(console: Console, table: Table) -> None:
    console.print(Padding(table, (0, 0, 0, 2), expand=False))
