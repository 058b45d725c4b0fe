"""Summarises a store as a report. Trials of different protocols are never ranked together.

No torch, no ray.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from attnfd_ray.analysis import ranking, trials
from attnfd_ray.analysis.classes import class_lines
from attnfd_ray.analysis.confirmation import confirmations
from attnfd_ray.analysis.gradients import gradient_lines
from attnfd_ray.analysis.pareto import fronts, metrics_of
from attnfd_ray.analysis.records import (
    Cost,
    ExperimentLine,
    ExperimentReport,
    FailureGroup,
    ProtocolReport,
    Report,
    TrialLine,
)
from attnfd_ray.analysis.trials import Rows
from attnfd_ray.errors import StoreError
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState

StoreRow = dict[str, Any]
_FAILED_STATES = (TrialState.FAILED, TrialState.INFEASIBLE)


def summarise(store: Store, *, experiment: str | None = None) -> Report:
    """Return the report on a store, with one experiment in full.

    That is the given one, or else the one that wrote last. Raises StoreError when there is no such
    experiment.
    """
    table = store.trials(columns=trials.TRIAL_COLUMNS)
    by_experiment = _grouped(table.to_pylist(), "experiment")
    times = {name: max(row["time_utc"] for row in rows) for name, rows in by_experiment.items()}
    latest_first = sorted(times, key=lambda name: (times[name], name), reverse=True)
    if experiment is not None and experiment not in times:
        known = "the store is empty"
        if times:
            known = f"there is: {', '.join(sorted(times))}"
        raise StoreError(f"{store.name}: no experiment '{experiment}'; {known}")
    if not latest_first:
        return Report(store=store.name, shown=None, others=[])
    shown = experiment or latest_first[0]
    others = [
        ExperimentLine(
            experiment=name, num_trials=_states(by_experiment[name]), time_utc=times[name]
        )
        for name in latest_first
        if name != shown
    ]
    return Report(store=store.name, shown=_experiment(store, shown, by_experiment), others=others)


def _experiment(
    store: Store, name: str, by_experiment: Mapping[str, Sequence[StoreRow]]
) -> ExperimentReport:
    table = store.epochs(columns=trials.EPOCH_COLUMNS)
    epochs = _grouped(table.to_pylist(), "trial_id")
    rows = [trials.with_epochs(row, epochs.get(row["trial_id"], [])) for row in by_experiment[name]]
    students = [row for row in rows if row["role"] != "teacher"]
    metrics = metrics_of(students)
    protocols = [
        dataclasses.replace(
            protocol,
            classes=class_lines(store, protocol),
            fronts=fronts(protocol.ranked, metrics),
            gradients=gradient_lines(store, protocol),
        )
        for protocol in _protocols(students, _teachers(rows, name, by_experiment))
    ]
    best_trials = [protocol.best for protocol in protocols if protocol.best]
    best_trial_id = None
    best_command = None
    if best_trials:
        best_trial_id = best_trials[0].trial_id
        best_command = _command(store.name, name)
    shown_epochs: list[StoreRow] = []
    for row in rows:
        shown_epochs += epochs.get(row["trial_id"], [])
    return ExperimentReport(
        experiment=name,
        methods=sorted({row["method"] for row in students or rows}),
        num_trials=_states(rows),
        protocols=protocols,
        failures=_failures(rows),
        cost=_cost(rows, shown_epochs),
        best_trial_id=best_trial_id,
        best_command=best_command,
        confirmations=confirmations(students),
    )


def _teachers(
    rows: Sequence[StoreRow], name: str, by_experiment: Mapping[str, Sequence[StoreRow]]
) -> list[StoreRow]:
    """Return the experiment's own teachers, then those of other experiments that it used."""
    own = [row for row in rows if row["role"] == "teacher"]
    hashes = {row["teacher_hash"] for row in rows} - {None}
    others = [
        row
        for other_name, other_rows in by_experiment.items()
        for row in other_rows
        if other_name != name and row["role"] == "teacher" and row["teacher_hash"] in hashes
    ]
    return own + others


def _protocols(students: Rows, teachers: Rows) -> list[ProtocolReport]:
    """Return one ranking per protocol: most ranked trials first, trials without a score last."""
    oldest_first = sorted(teachers, key=lambda row: row["time_utc"])
    teacher_of = {row["protocol"]: trials.line(row) for row in oldest_first}
    lines: defaultdict[str | None, list[TrialLine]] = defaultdict(list)
    for row in students:
        lines[row["protocol"]].append(trials.line(row))
    for protocol in teacher_of:
        lines.setdefault(protocol, [])  # a teacher without students is shown too
    reports = [
        ranking.compare(protocol, teacher_of.get(protocol), lines[protocol]) for protocol in lines
    ]
    return sorted(
        reports,
        key=lambda report: (report.protocol is None, -len(report.ranked), report.protocol or ""),
    )


def _failures(rows: Rows) -> list[FailureGroup]:
    failed = [row for row in rows if row["state"] in _FAILED_STATES]
    failed.sort(key=lambda row: (row["time_utc"], row["trial_id"]))
    with_kind = [{**row, "failure_kind": row["failure_kind"] or "unknown"} for row in failed]
    groups = [
        FailureGroup(
            kind=kind,
            num_trials=len(group),
            first_trial_id=group[0]["trial_id"],
            first_text=group[0]["failure_text"],
        )
        for kind, group in _grouped(with_kind, "failure_kind").items()
    ]
    return sorted(groups, key=lambda group: (-group.num_trials, group.kind))


def _cost(rows: Rows, epochs: Rows) -> Cost:
    speeds = [trials.measured(epoch["images_per_s"]) for epoch in epochs]
    known_speeds = [speed for speed in speeds if speed is not None]
    median_speed = None
    if known_speeds:
        median_speed = median(known_speeds)
    peaks = [row["peak_mem_mib"] for row in rows if row["peak_mem_mib"] is not None]
    return Cost(
        wall_s=sum(row["wall_s"] or 0.0 for row in rows),
        images_per_s_median=median_speed,
        peak_mem_mib=max(peaks, default=None),
    )


def _states(rows: Rows) -> dict[TrialState, int]:
    counts = Counter(row["state"] for row in rows)
    return {state: counts[state] for state in TrialState if counts[state]}


def _grouped(rows: Iterable[StoreRow], column: str) -> dict[str, list[StoreRow]]:
    groups: defaultdict[str, list[StoreRow]] = defaultdict(list)
    for row in rows:
        groups[row[column]].append(row)
    return dict(groups)


def _command(store: str, experiment: str) -> str:
    """Return the shell command that trains the best config of an experiment again."""
    report = [
        "attnfd-ray",
        "report",
        store,
        "--experiment",
        experiment,
        "--best-config",
        "best.yaml",
    ]
    return f"{shlex.join(report)} && attnfd-ray train best.yaml"
