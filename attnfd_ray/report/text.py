"""A report on a console, at 80 columns and in pipes too. Prints nothing but what it is handed a
console for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from rich.console import Console
from rich.table import Table
from rich.text import Text

from attnfd_ray.analysis import numbers
from attnfd_ray.analysis.records import (
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
from attnfd_ray.analysis.seeds import config_of, lost_seeds, repeated, shown_values
from attnfd_ray.config.types import SEED
from attnfd_ray.report.console import add_row, new_table, print_table, print_text, print_title
from attnfd_ray.report.gradient_text import show_gradients
from attnfd_ray.report.headline import config_name, headline
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
        print_text(
            console,
            f"{report.store}: no trials yet; `attnfd-ray train` or `tune` with this store adds "
            "some",
        )
        return
    _experiment(report.shown, console)
    if report.others:
        print_title(console, "Also in this store (--experiment NAME shows one)")
        for other in report.others:
            print_text(console, _other(other), indent=2)


def _experiment(shown: ExperimentReport, console: Console) -> None:
    print_text(console, shown.experiment, style="bold")
    print_text(console, f"{', '.join(shown.methods)}; {_states(shown.num_trials)}", indent=2)
    print_text(console, _cost(shown.cost), indent=2)
    if said := headline(shown):
        print_title(console, "In short")
        print_text(console, said, indent=2)
    for protocol in shown.protocols:
        _protocol(protocol, console)
    for confirmation in shown.confirmations:
        show_confirmation(confirmation, console)
    if shown.failures:
        print_title(console, "Failures")
        print_table(console, _failures(shown.failures))
    if shown.best_command:
        print_title(console, "Run the best config again")
        # one line whatever its length: it is there to be copied
        console.print(Text(f"  {shown.best_command}"), soft_wrap=True)


def _protocol(report: ProtocolReport, console: Console) -> None:
    print_title(console, f"Protocol: {report.protocol}" if report.protocol else "No score yet")
    heads = [
        ("teacher", report.teacher),
        ("baseline", report.baseline),
        ("best config", report.best),
    ]
    if any(line for _, line in heads):
        print_table(console, _heads([(name, line) for name, line in heads if line]))
    if report.gain:
        console.print()
        print_text(console, _gain(report.gain), indent=2)
    elif report.best:
        lost = lost_seeds("best config", report.best, [*report.ranked, *report.others])
        print_text(console, f"There is no finished baseline to compare with.{lost}", indent=2)
    if report.classes:
        print_title(console, "IoU % of each class, at the best epoch")
        print_table(console, _classes(report.classes))
    if report.configs:
        print_title(
            console, "Over seeds of complete trials (mean, 95 % interval; gains seed by seed)"
        )
        print_table(console, _configs(report.configs))
    several = repeated([*report.ranked, *report.others])
    for front in report.fronts:
        print_title(console, f"Front: {_counted_front(front)}")
        print_table(console, _front(front))
        console.print()
        print_text(console, _how_to_use(front), indent=2)
    if report.ranked:
        print_title(console, "Ranking (complete, full budget)")
        print_table(console, _ranking(report.ranked, several))
    if report.gradients:
        show_gradients(report.gradients, console)
    if report.others:
        if report.protocol:
            print_title(console, "Not ranked")
        print_table(console, _unranked(report.others, several))


def show_confirmation(confirmation: Confirmation, console: Console) -> None:
    """Print what holds of a search's leaders over fresh seeds."""
    leaders = numbers.counted(confirmation.num_leaders, "leader")
    seeds = numbers.counted(confirmation.num_seeds, "fresh seed")
    print_title(console, f"Confirmed: {leaders} and the baseline over {seeds}")
    print_table(console, _confirmed(confirmation.lines))
    console.print()
    print_text(console, _what_it_is_worth(confirmation), indent=2)


def _what_it_is_worth(confirmation: Confirmation) -> str:
    tried = numbers.counted(confirmation.num_tried, "config")
    together = f", so that all {confirmation.num_leaders} hold with 95 % (Bonferroni)"
    interval = f"{100 * confirmation.confidence:.4g} % interval{together if confirmation.num_leaders > 1 else ''}"
    parts = [
        (
            f"{confirmation.search_id} tried {tried}, so its best was lucky too; only seeds that it "
            "never used count here."
        ),
        (
            f"Gains are seed by seed, each with a {interval}; tie: it contains 0. mIoU with 95 % "
            "intervals."
        ),
    ]
    if confirmation.num_missing:
        parts.append(
            f"Left out, failed or not ended: {numbers.counted(confirmation.num_missing, 'run')}."
        )
    return " ".join(parts)


def _heads(heads: Sequence[tuple[str, TrialLine]]) -> Table:
    tested = any(line.test_miou is not None for _, line in heads)
    table = new_table(
        ["", "Trial"], ["mIoU %", "Best at", "Last %", *(["Test %"] if tested else [])]
    )
    for name, line in heads:
        at = numbers.of(line.best_epoch, line.epochs_total)
        cells = [numbers.percent(line.best_val_miou), at, numbers.percent(line.last_val_miou)]
        add_row(
            table,
            name,
            line.trial_id,
            *cells,
            *([numbers.percent(line.test_miou)] if tested else []),
        )
    return table


def _classes(lines: Iterable[ClassLine]) -> Table:
    table = new_table(["Class"], ["teacher", "baseline", "best config"])
    for line in lines:
        add_row(
            table,
            line.name,
            *(numbers.percent(iou) for iou in (line.teacher, line.baseline, line.best)),
        )
    return table


def _configs(configs: Iterable[ConfigLine]) -> Table:
    table = new_table(["Config"], ["Seeds", "mIoU %", "Gain, points"])
    for line in configs:
        add_row(table, *_over_seeds(line))
    return table


def _confirmed(lines: Iterable[ConfirmedLine]) -> Table:
    table = new_table(["Config"], ["Seeds", "mIoU %", "Gain, points"], ["Verdict"])
    for line in lines:
        add_row(table, *_over_seeds(line), line.verdict or numbers.NONE)
    return table


def _over_seeds(line: ConfigLine | ConfirmedLine) -> list[str]:
    """Return a config's name, number of seeds, score and gain."""
    name = config_name("none (baseline)" if line.is_baseline else line.method, line.values)
    score, gain = line.best_val_miou, line.gain
    gained = (
        numbers.NONE
        if gain is None
        else numbers.interval(numbers.points(gain.mean), gain.half_width)
    )
    return [
        name,
        str(score.num),
        numbers.interval(numbers.percent(score.mean), score.half_width),
        gained,
    ]


def _ranking(ranked: Iterable[TrialLine], several: Set[str]) -> Table:
    table = new_table(["#", "Trial"], ["mIoU %", "Best at", "Wall"], ["Values"])
    for line in ranked:
        at = numbers.of(line.best_epoch, line.epochs_total)
        score, wall = numbers.percent(line.best_val_miou), numbers.duration(line.wall_s)
        add_row(table, str(line.rank), line.trial_id, score, at, wall, _values(line, several))
    return table


def _counted_front(front: Front) -> str:
    metrics = f"{', '.join(front.metrics[:-1])} and {front.metrics[-1]}"
    return f"{numbers.counted(len(front.lines), 'config')} not dominated in {metrics}, {front.num_dominated} dominated"


def _front(front: Front) -> Table:
    timed, repeated = front.latency_protocol is not None, max(front.num_seeds) > 1
    table = new_table(
        ["#", "Trial"],
        [
            *(["Seeds"] if repeated else []),
            "mIoU %",
            "Params, M",
            *(["Latency, ms"] if timed else []),
        ],
        ["Values"],
    )
    for line, num_seeds in zip(front.lines, front.num_seeds, strict=True):
        latency = [numbers.decimals(line.latency_ms, 2)] if timed else []
        params = None if line.student_params is None else line.student_params / 1e6
        seeds = [str(num_seeds)] if repeated else []
        cells = [*seeds, numbers.percent(line.best_val_miou), numbers.decimals(params, 3), *latency]
        add_row(table, str(line.rank), line.trial_id, *cells, _values(line, set()))
    return table


def _how_to_use(front: Front) -> str:
    timed = ""
    if front.latency_protocol:
        timed = (
            f"Latency of one image, {front.latency_protocol}; trials that ran beside it on the "
            "same machine slow it: "
            "compare those of tune.concurrent: 1. "
        )
    means = (
        "Means over the seeds of a config, of which the best is named. "
        if max(front.num_seeds) > 1
        else ""
    )
    return f"{means}{timed}Settings of any: attnfd-ray report --best-config FILE --trial TRIAL."


def _unranked(others: Iterable[TrialLine], several: Set[str]) -> Table:
    table = new_table(["State", "Trial"], ["mIoU %", "Done", "Wall"], ["Values"])
    for line in others:
        done = numbers.of(line.epochs_done, line.epochs_total)
        score, wall = numbers.percent(line.best_val_miou), numbers.duration(line.wall_s)
        # a trial that Ctrl-C stopped is still to be done, but nobody is at it
        state = "interrupted" if line.failure_kind == "INTERRUPTED" else _state(line.state)
        add_row(table, state, line.trial_id, score, done, wall, _values(line, several))
    return table


def _failures(failures: Iterable[FailureGroup]) -> Table:
    table = new_table(["Kind"], ["Trials"], ["First"])
    for group in failures:
        text = (group.first_text or numbers.NONE).strip().partition("\n")[0]
        add_row(table, group.kind, str(group.num_trials), f"{group.first_trial_id}: {text}")
    return table


def _values(line: TrialLine, several: Set[str]) -> str:
    """Return role, values, the seed where the config has several, and why the trial was stopped."""
    values = shown_values(line.values, as_written=line.role == "as_written")
    values |= {SEED: line.seed} if config_of(line) in several or SEED in line.values else {}
    what = " ".join(
        part for part in (_LABELS.get(line.role, ""), numbers.assignments(values)) if part
    )
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
