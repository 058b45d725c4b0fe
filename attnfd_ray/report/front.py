"""The front of a search with several metrics: the trials that no other is at least as good as in all of them.

Only what was measured alike meets here: latencies of unlike sizes, precisions or devices are of fronts of their own.
"""

from __future__ import annotations

import json
import operator
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from attnfd_ray.config.metrics import LATENCY, METRICS, MIOU
from attnfd_ray.report.records import Front, TrialLine
from attnfd_ray.report.trials import Row, measured

Metrics = tuple[str, ...]


def fronts(ranked: Sequence[TrialLine], metrics: Mapping[str, Metrics]) -> list[Front]:
    """Return the fronts of ranked trials, of most trials first; `metrics` says by trial id what its search aimed at."""
    groups: defaultdict[tuple[Metrics, str | None], list[TrialLine]] = defaultdict(list)
    for line in ranked:
        aims = metrics.get(line.trial_id, ())
        if len(aims) > 1 and costs(vars(line), aims):
            groups[aims, line.latency_protocol if LATENCY in aims else None].append(line)
    found = []
    for (aims, latency_protocol), lines in sorted(groups.items(), key=lambda group: -len(group[1])):
        ids = {row["trial_id"] for row in on_front([vars(line) for line in lines], aims)}
        front = [line for line in lines if line.trial_id in ids]
        dominated = len(lines) - len(front)
        found.append(Front(metrics=list(aims), latency_protocol=latency_protocol, num_dominated=dominated, lines=front))
    return found


def on_front(rows: Sequence[Row], metrics: Metrics) -> list[Row]:
    """Return those that none dominates, in their order: no other is as good in every metric and better in one.

    A trial timed another way dominates none, and one with anything not measured is on no front.
    """
    timed = LATENCY in metrics
    groups: defaultdict[str | None, list[tuple[float, ...]]] = defaultdict(list)
    # whoever dominates sorts before whom it dominates, so a front that is complete so far decides
    for row in sorted((row for row in rows if costs(row, metrics)), key=lambda row: costs(row, metrics)):
        front, cost = groups[row["latency_protocol"] if timed else None], costs(row, metrics)
        if cost not in front and not any(all(map(operator.le, other, cost)) for other in front):
            front.append(cost)
    return [row for row in rows if costs(row, metrics) in groups[row["latency_protocol"] if timed else None]]


def costs(row: Row, metrics: Metrics) -> tuple[float, ...]:
    """Return a number for each metric, the less the better; nothing where one was not measured."""
    known = {**row, MIOU: row["best_val_miou"]}
    values = [value for name in metrics if (value := measured(known[name])) is not None]
    if len(values) < len(metrics):
        return ()
    return tuple(-value if METRICS[name] else value for name, value in zip(metrics, values, strict=True))


def metrics_of(rows: Sequence[Row]) -> dict[str, Metrics]:
    """Return what each trial's search aimed at, by trial id; trials of no search, and those run again, are left out."""
    by_search: dict[str, Metrics] = {}
    for row in rows:
        if row["search_id"] is not None and row["search_id"] not in by_search and row["config_json"]:
            by_search[row["search_id"]] = _metrics(json.loads(row["config_json"]))
    return {
        row["trial_id"]: by_search[row["search_id"]]
        for row in rows
        if row["search_id"] in by_search and row["role"] != "confirm"
    }


def _metrics(config: Mapping[str, Any]) -> Metrics:
    """Return what settings of any version aim at."""
    metric = config.get("tune", {}).get("metric", MIOU)
    return (metric,) if isinstance(metric, str) else tuple(metric)
