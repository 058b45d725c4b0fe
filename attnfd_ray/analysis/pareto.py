"""Pareto fronts of searches with several metrics. No torch, no ray.

A config is on the front if no other dominates it: is at least as good in every metric and better in
one. A config with several seeds counts once, with its means, so that its luckiest seed alone does
not bring it onto the front. Only configs that were measured alike are compared: latencies of
different image sizes, precisions or devices are put on separate fronts.
"""

from __future__ import annotations

import dataclasses
import json
import operator
from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from attnfd_ray.analysis.ranking import config_means
from attnfd_ray.analysis.records import Front, Lines, TrialLine
from attnfd_ray.analysis.trials import Row, Rows, config_of_row, measured
from attnfd_ray.config.metrics import LATENCY, METRICS, MIOU

Metrics = tuple[str, ...]
Costs = tuple[float, ...]  # one per metric, lower is better


def fronts(ranked: Lines, metrics: Mapping[str, Metrics]) -> list[Front]:
    """Return the fronts of ranked trials, that of most trials first.

    `metrics` are the metrics of each trial's search, by trial id.
    """
    groups: defaultdict[tuple[Metrics, str | None], list[TrialLine]] = defaultdict(list)
    for line in ranked:
        row = vars(line)
        of_search = metrics.get(line.trial_id, ())
        if len(of_search) > 1 and costs(row, of_search):
            groups[of_search, _timing(row, of_search)].append(line)
    largest_first = sorted(groups, key=lambda group: -len(groups[group]))
    return [_front(groups[group], *group) for group in largest_first]


def over_seeds(rows: Rows, metrics: Metrics) -> list[dict[str, Any]]:
    """Return the first complete trial of each config, with means over its seeds.

    Means are of mIoU, and of latency where it is a metric. `num_seeds` is added. Trials without all
    metrics are left out, and those timed differently count as different configs.
    """
    configs: defaultdict[tuple[str, str | None], list[Row]] = defaultdict(list)
    for row in rows:
        if costs(row, metrics):
            configs[config_of_row(row), _timing(row, metrics)].append(row)
    points: list[dict[str, Any]] = []
    for (config, _), trials in configs.items():
        point = dict(trials[0])
        point["best_val_miou"] = config_means(trials)[config]
        if LATENCY in metrics:
            point[LATENCY] = fmean(row[LATENCY] for row in trials)
        point["num_seeds"] = len({row["seed"] for row in trials})
        points.append(point)
    return points


def on_front(rows: Rows, metrics: Metrics) -> list[Row]:
    """Return the rows that no other dominates, in their order.

    Rows that were timed differently do not dominate each other, and a row without all metrics is on
    no front.
    """
    points = [(costs(row, metrics), _timing(row, metrics)) for row in rows]
    front_of: defaultdict[str | None, list[Costs]] = defaultdict(list)
    # A row sorts after all rows that dominate it, so it is enough to compare with the front so far.
    for cost, timing in sorted(points, key=lambda point: point[0]):
        front = front_of[timing]
        is_dominated = any(_is_no_worse(other, cost) for other in front)
        if cost and not is_dominated:
            front.append(cost)
    return [
        row for row, (cost, timing) in zip(rows, points, strict=True) if cost in front_of[timing]
    ]


def costs(row: Row, metrics: Metrics) -> Costs:
    """Return a number per metric, lower is better; empty where a metric was not measured."""
    known = {**row, MIOU: row["best_val_miou"]}
    numbers: list[float] = []
    for name in metrics:
        value = measured(known[name])
        if value is None:
            return ()
        if METRICS[name]:  # higher is better
            value = -value
        numbers.append(value)
    return tuple(numbers)


def metrics_of(rows: Rows) -> dict[str, Metrics]:
    """Return the metrics of each trial's search, by trial id.

    Trials of no search are left out, and so are leaders that were run again.
    """
    by_search: dict[str, Metrics] = {}
    for row in rows:
        search_id = row["search_id"]
        if search_id is not None and search_id not in by_search and row["config_json"]:
            by_search[search_id] = _metrics(json.loads(row["config_json"]))
    return {
        row["trial_id"]: by_search[row["search_id"]]
        for row in rows
        if row["search_id"] in by_search and row["role"] != "confirm"
    }


def _front(lines: Lines, metrics: Metrics, latency_protocol: str | None) -> Front:
    """Return the front of trials that were measured alike."""
    by_id = {line.trial_id: line for line in lines}
    points = over_seeds([vars(line) for line in lines], metrics)
    front = on_front(points, metrics)
    front_lines = [
        dataclasses.replace(
            by_id[point["trial_id"]],
            best_val_miou=point["best_val_miou"],
            latency_ms=point["latency_ms"],
        )
        for point in front
    ]
    return Front(
        metrics=list(metrics),
        latency_protocol=latency_protocol,
        num_dominated=len(points) - len(front),
        lines=front_lines,
        num_seeds=[point["num_seeds"] for point in front],
    )


def _timing(row: Row, metrics: Metrics) -> str | None:
    """Return how a trial was timed, or None where latency is not a metric."""
    if LATENCY not in metrics:
        return None
    protocol: str | None = row["latency_protocol"]
    return protocol


def _is_no_worse(cost: Costs, other: Costs) -> bool:
    return all(map(operator.le, cost, other))


def _metrics(config: Mapping[str, Any]) -> Metrics:
    """Return the metrics in the settings of a search, of any version."""
    metric = config.get("tune", {}).get("metric", MIOU)
    if isinstance(metric, str):
        return (metric,)
    return tuple(metric)
