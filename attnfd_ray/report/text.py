"""Prints a report on a given console, at 80 columns and in pipes too. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from attnfd_ray.analysis import numbers
from attnfd_ray.analysis.notes import note_on_lost_seeds
from attnfd_ray.analysis.records import (
    Confirmation,
    Cost,
    ExperimentLine,
    ExperimentReport,
    Front,
    Gain,
    ProtocolReport,
    Report,
)
from attnfd_ray.analysis.seeds import repeated
from attnfd_ray.report import tables
from attnfd_ray.report.console import print_table, print_text, print_title
from attnfd_ray.report.gradient_text import show_gradients
from attnfd_ray.report.headline import headline
from attnfd_ray.terms import TrialState


def show(report: Report, console: Console) -> None:
    """Print a report."""
    if report.shown is None:
        print_text(
            console,
            f"{report.store}: no trials yet; `attnfd-ray train` or `tune` with this store adds "
            "some",
        )
        return
    _show_experiment(report.shown, console)
    if report.others:
        print_title(console, "Also in this store (--experiment NAME shows one)")
        for other in report.others:
            print_text(console, _other(other), indent=2)


def show_confirmation(confirmation: Confirmation, console: Console) -> None:
    """Print the results of a search's leaders over fresh seeds."""
    leaders = numbers.counted(confirmation.num_leaders, "leader")
    seeds = numbers.counted(confirmation.num_seeds, "fresh seed")
    print_title(console, f"Confirmed: {leaders} and the baseline over {seeds}")
    print_table(console, tables.confirmed(confirmation.lines))
    console.print()
    print_text(console, _how_to_read_confirmation(confirmation), indent=2)


def _show_experiment(shown: ExperimentReport, console: Console) -> None:
    print_text(console, shown.experiment, style="bold")
    print_text(console, f"{', '.join(shown.methods)}; {_states(shown.num_trials)}", indent=2)
    print_text(console, _cost(shown.cost), indent=2)
    in_short = headline(shown)
    if in_short:
        print_title(console, "In short")
        print_text(console, in_short, indent=2)
    for protocol in shown.protocols:
        _show_protocol(protocol, console)
    for confirmation in shown.confirmations:
        show_confirmation(confirmation, console)
    if shown.failures:
        print_title(console, "Failures")
        print_table(console, tables.failures(shown.failures))
    if shown.best_command:
        print_title(console, "Run the best config again")
        # in one line whatever its length, so that it can be copied
        console.print(Text(f"  {shown.best_command}"), soft_wrap=True)


def _show_protocol(report: ProtocolReport, console: Console) -> None:
    title = "No score yet"
    if report.protocol:
        title = f"Protocol: {report.protocol}"
    print_title(console, title)
    _show_gain(report, console)
    if report.classes:
        print_title(console, "IoU % of each class, at the best epoch")
        print_table(console, tables.classes(report.classes))
    if report.configs:
        print_title(
            console, "Over seeds of complete trials (mean, 95 % interval; gains seed by seed)"
        )
        print_table(console, tables.configs(report.configs))
    for front in report.fronts:
        print_title(console, f"Front: {_front_size(front)}")
        print_table(console, tables.pareto_front(front))
        console.print()
        print_text(console, _how_to_read_front(front), indent=2)
    with_seeds = repeated([*report.ranked, *report.others])
    if report.ranked:
        print_title(console, "Ranking (complete, full budget)")
        print_table(console, tables.ranking(report.ranked, with_seeds))
    if report.gradients:
        show_gradients(report.gradients, console)
    if report.others:
        if report.protocol:
            print_title(console, "Not ranked")
        print_table(console, tables.unranked(report.others, with_seeds))


def _show_gain(report: ProtocolReport, console: Console) -> None:
    """Print teacher, baseline and best config, and the gain of the best config."""
    candidates = {
        "teacher": report.teacher,
        "baseline": report.baseline,
        "best config": report.best,
    }
    lines = {name: line for name, line in candidates.items() if line}
    if lines:
        print_table(console, tables.main_trials(lines))
    if report.gain:
        console.print()
        print_text(console, _gain(report.gain), indent=2)
    elif report.best:
        lost = note_on_lost_seeds("best config", report.best, [*report.ranked, *report.others])
        print_text(console, f"There is no finished baseline to compare with.{lost}", indent=2)


def _how_to_read_confirmation(confirmation: Confirmation) -> str:
    tried = numbers.counted(confirmation.num_tried, "config")
    interval = f"{100 * confirmation.confidence:.4g} % interval"
    if confirmation.num_leaders > 1:
        interval += f", so that all {confirmation.num_leaders} hold with 95 % (Bonferroni)"
    text = (
        f"{confirmation.search_id} tried {tried}, so its best was lucky too; only seeds that it "
        f"never used count here. Gains are seed by seed, each with a {interval}; tie: it contains "
        "0. mIoU with 95 % intervals."
    )
    if confirmation.num_missing:
        missing = numbers.counted(confirmation.num_missing, "run")
        text += f" Left out, failed or not ended: {missing}."
    return text


def _front_size(front: Front) -> str:
    metrics = f"{', '.join(front.metrics[:-1])} and {front.metrics[-1]}"
    configs = numbers.counted(len(front.lines), "config")
    return f"{configs} not dominated in {metrics}, {front.num_dominated} dominated"


def _how_to_read_front(front: Front) -> str:
    text = ""
    if max(front.num_seeds) > 1:
        text += "Means over the seeds of a config; its best trial is named. "
    if front.latency_protocol:
        text += (
            f"Latency of one image, {front.latency_protocol}; trials that ran beside it on the "
            "same machine slow it: compare those of tune.concurrent: 1. "
        )
    return f"{text}Settings of any: attnfd-ray report --best-config FILE --trial TRIAL."


def _states(counts: Mapping[TrialState, int]) -> str:
    total = sum(counts.values())
    states = [f"{count} {tables.state_name(state)}" for state, count in counts.items()]
    return f"{numbers.counted(total, 'trial')}: {', '.join(states)}"


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
    best = numbers.points(gain.best_epoch_miou)
    last = numbers.points(gain.last_epoch_miou)
    text = f"Gain over the baseline: {best} points, {last} at the last epoch. {gain.note}"
    if gain.best_epoch_miou > 0:
        return text
    return f"No config did better than the baseline. {text}"
