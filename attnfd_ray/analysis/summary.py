"""A store in, a report out. Unlike protocols are never ranked together: each has a ranking of its
own.
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
from attnfd_ray.analysis.trials import Row
from attnfd_ray.errors import StoreError
from attnfd_ray.store.rows import TrialState
from attnfd_ray.store.store import Store


def summarise(store: Store, *, experiment: str | None = None) -> Report:
    """Return what a store holds, in full for one experiment: the one named, else the one that wrote
    last.

    Raises StoreError when there is no such experiment.
    """
    by_experiment = _grouped(store.trials(columns=trials.TRIAL_COLUMNS).to_pylist(), "experiment")
    times = {name: max(row["time_utc"] for row in rows) for name, rows in by_experiment.items()}
    names = sorted(times, key=lambda name: (times[name], name), reverse=True)
    if experiment is not None and experiment not in times:
        there = f"there is: {', '.join(sorted(names))}" if names else "the store is empty"
        raise StoreError(f"{store.name}: no experiment '{experiment}'; {there}")
    shown = experiment or next(iter(names), None)
    return Report(
        store=store.name,
        shown=_experiment(store, shown, by_experiment) if shown else None,
        others=[
            ExperimentLine(
                experiment=name, num_trials=_states(by_experiment[name]), time_utc=times[name]
            )
            for name in names
            if name != shown
        ],
    )


def _experiment(
    store: Store, name: str, by_experiment: Mapping[str, Sequence[dict[str, Any]]]
) -> ExperimentReport:
    epochs = _grouped(store.epochs(columns=trials.EPOCH_COLUMNS).to_pylist(), "trial_id")
    rows = [trials.with_epochs(row, epochs.get(row["trial_id"], [])) for row in by_experiment[name]]
    hashes = {row["teacher_hash"] for row in rows} - {None}
    # a teacher trained for one experiment may serve another
    elsewhere = [row for key, group in by_experiment.items() if key != name for row in group]
    teachers = [row for row in rows if row["role"] == "teacher"]
    students = [row for row in rows if row["role"] != "teacher"]
    teachers += [
        row for row in elsewhere if row["role"] == "teacher" and row["teacher_hash"] in hashes
    ]
    metrics = metrics_of(students)
    protocols = [
        dataclasses.replace(
            protocol,
            classes=class_lines(store, protocol),
            fronts=fronts(protocol.ranked, metrics),
            gradients=gradient_lines(store, protocol),
        )
        for protocol in _protocols(students, teachers)
    ]
    best = next((protocol.best for protocol in protocols if protocol.best), None)
    return ExperimentReport(
        experiment=name,
        methods=sorted({row["method"] for row in students or teachers}),
        num_trials=_states(rows),
        protocols=protocols,
        failures=_failures(rows),
        cost=_cost(rows, [epoch for row in rows for epoch in epochs.get(row["trial_id"], [])]),
        best_trial_id=best.trial_id if best else None,
        best_command=_command(store.name, name) if best else None,
        confirmations=confirmations(students),
    )


def _protocols(students: Sequence[Row], teachers: Sequence[Row]) -> list[ProtocolReport]:
    """Return one ranking per protocol, the one with most ranked trials first, trials without a
    score last.
    """
    scores = {
        row["protocol"]: trials.line(row)
        for row in sorted(teachers, key=lambda row: row["time_utc"])
    }
    lines: defaultdict[str | None, list[TrialLine]] = defaultdict(list)
    for row in students:
        lines[row["protocol"]].append(trials.line(row))
    for protocol in scores:
        lines[protocol] += []  # a teacher alone is worth showing too
    reports = [
        ranking.compare(protocol, scores.get(protocol), lines[protocol]) for protocol in lines
    ]
    return sorted(
        reports,
        key=lambda report: (report.protocol is None, -len(report.ranked), report.protocol or ""),
    )


def _failures(rows: Iterable[Row]) -> list[FailureGroup]:
    failed = [row for row in rows if row["state"] in (TrialState.FAILED, TrialState.INFEASIBLE)]
    failed.sort(key=lambda row: (row["time_utc"], row["trial_id"]))
    kinds = _grouped(
        [{**row, "failure_kind": row["failure_kind"] or "unknown"} for row in failed],
        "failure_kind",
    )
    groups = [
        FailureGroup(
            kind=kind,
            num_trials=len(group),
            first_trial_id=group[0]["trial_id"],
            first_text=group[0]["failure_text"],
        )
        for kind, group in kinds.items()
    ]
    return sorted(groups, key=lambda group: (-group.num_trials, group.kind))


def _cost(rows: Sequence[Row], epochs: Sequence[Row]) -> Cost:
    speeds = [
        speed for epoch in epochs if (speed := trials.measured(epoch["images_per_s"])) is not None
    ]
    return Cost(
        wall_s=sum(row["wall_s"] or 0.0 for row in rows),
        images_per_s_median=median(speeds) if speeds else None,
        peak_mem_mib=max(
            (row["peak_mem_mib"] for row in rows if row["peak_mem_mib"] is not None), default=None
        ),
    )


def _states(rows: Sequence[Row]) -> dict[TrialState, int]:
    counts = Counter(row["state"] for row in rows)
    return {state: counts[state] for state in TrialState if counts[state]}


def _grouped(rows: Iterable[dict[str, Any]], column: str) -> dict[str, list[dict[str, Any]]]:
    groups: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row[column]].append(row)
    return dict(groups)


def _command(store: str, experiment: str) -> str:
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
