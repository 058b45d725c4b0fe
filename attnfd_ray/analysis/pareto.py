"""The front of a search with several metrics: the configs that no other is at least as good as in
all of them.

A config with several seeds counts once, with its means: its luckiest seed alone does not bring it
there. Only what was measured alike meets here: latencies of unlike sizes, precisions or devices are
of fronts of their own.
"""

from __future__ import annotations

import dataclasses
import json
import operator
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from attnfd_ray.analysis.ranking import worths
from attnfd_ray.analysis.records import Front, TrialLine
from attnfd_ray.analysis.trials import Row, config_of_row, measured
from attnfd_ray.config.metrics import LATENCY, METRICS, MIOU

Metrics = tuple[str, ...]


def fronts(ranked: Sequence[TrialLine], metrics: Mapping[str, Metrics]) -> list[Front]:
    """Return the fronts of ranked trials, of most trials first; `metrics` says by trial id what its
    search aimed at.
    """
    groups: defaultdict[tuple[Metrics, str | None], list[TrialLine]] = defaultdict(list)
    for line in ranked:
        aims = metrics.get(line.trial_id, ())
        if len(aims) > 1 and costs(vars(line), aims):
            groups[aims, line.latency_protocol if LATENCY in aims else None].append(line)
    found, by_id = [], {line.trial_id: line for line in ranked}
    for (aims, latency_protocol), lines in sorted(groups.items(), key=lambda group: -len(group[1])):
        points = over_seeds([vars(line) for line in lines], aims)
        front = on_front(points, aims)
        found.append(
            Front(
                metrics=list(aims),
                latency_protocol=latency_protocol,
                num_dominated=len(points) - len(front),
                lines=[
                    dataclasses.replace(
                        by_id[row["trial_id"]],
                        best_val_miou=row["best_val_miou"],
                        latency_ms=row["latency_ms"],
                    )
                    for row in front
                ],
                num_seeds=[row["num_seeds"] for row in front],
            )
        )
    return found


def over_seeds(rows: Sequence[Row], metrics: Metrics) -> list[dict[str, Any]]:
    """Return the first trial of each config that has all that is measured, with means over the
    config's `num_seeds`.

    Means are of mIoU and, of trials timed alike, of the latency.
    """
    configs: defaultdict[tuple[str, str | None], list[Row]] = defaultdict(list)
    for row in rows:
        if costs(row, metrics):
            configs[
                config_of_row(row), row["latency_protocol"] if LATENCY in metrics else None
            ].append(row)
    found = []
    for (config, _), trials in configs.items():
        point = dict(trials[0]) | {"best_val_miou": worths(trials)[config]}
        if LATENCY in metrics:
            point[LATENCY] = fmean(row[LATENCY] for row in trials)
        found.append(point | {"num_seeds": len({row["seed"] for row in trials})})
    return found


def on_front(rows: Sequence[Row], metrics: Metrics) -> list[Row]:
    """Return those that none dominates, in their order: no other is as good in every metric and
    better in one.

    A trial timed another way dominates none, and one with anything not measured is on no front.
    """
    timed = LATENCY in metrics
    groups: defaultdict[str | None, list[tuple[float, ...]]] = defaultdict(list)
    # whoever dominates sorts before whom it dominates, so a front that is complete so far decides
    for row in sorted(
        (row for row in rows if costs(row, metrics)), key=lambda row: costs(row, metrics)
    ):
        front, cost = groups[row["latency_protocol"] if timed else None], costs(row, metrics)
        if cost not in front and not any(all(map(operator.le, other, cost)) for other in front):
            front.append(cost)
    return [
        row
        for row in rows
        if costs(row, metrics) in groups[row["latency_protocol"] if timed else None]
    ]


def costs(row: Row, metrics: Metrics) -> tuple[float, ...]:
    """Return a number for each metric, the less the better; nothing where one was not measured."""
    known = {**row, MIOU: row["best_val_miou"]}
    values = [value for name in metrics if (value := measured(known[name])) is not None]
    if len(values) < len(metrics):
        return ()
    return tuple(
        -value if METRICS[name] else value for name, value in zip(metrics, values, strict=True)
    )


def metrics_of(rows: Sequence[Row]) -> dict[str, Metrics]:
    """Return what each trial's search aimed at, by trial id; trials of no search, and those run
    again, are left out.
    """
    by_search: dict[str, Metrics] = {}
    for row in rows:
        if (
            row["search_id"] is not None
            and row["search_id"] not in by_search
            and row["config_json"]
        ):
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
