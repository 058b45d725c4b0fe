"""Trials of an earlier search, as the sampler of this one may know them. No torch, no ray.

They are no trials of this search: not counted, never its best, and free to be tried again. And they
compete with none of its trials at a rung or a median: the sampler only ranks, but a cut-off
compares values, and those of a search with other settings may lie on another level, which would
stop every new trial, or none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from attnfd_ray.config.metrics import LATENCY
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.search.distributions import encode
from attnfd_ray.search.objectives import objective_values
from attnfd_ray.search.records import BASELINES, PastTrial, WarmStartSummary

_NOT_LEARNING = {
    "cmaes",
    "grid",
    "nsga2",
    "random",
}  # from trials that they did not propose themselves


def check_sampler(settings: ExperimentSettings) -> None:
    """Raise ConfigError where the sampler would not heed earlier trials, or could not compare
    them.
    """
    name = settings.tune.sampler
    if LATENCY in settings.tune.metrics:
        raise ConfigError(
            f"tune.metric: {LATENCY} of earlier trials may be another machine's; leave "
            f"--warm-start or {LATENCY} out"
        )
    if name in _NOT_LEARNING:
        raise ConfigError(
            f"tune.sampler: '{name}' learns nothing from a warm start; needs tpe or gp"
        )


def to_frozen_trials(
    earlier: Iterable[PastTrial],
    settings: ExperimentSettings,
    distributions: Mapping[str, BaseDistribution],
) -> tuple[list[FrozenTrial], WarmStartSummary]:
    """Return the earlier trials that lie in this space as Optuna's, and how many do and do not.

    What was not searched then takes the file's own value; what is not searched now must have it.
    Several metrics learn from those alone that ran as long as one does here: of one stopped early
    Optuna would take nothing.
    """
    found: list[FrozenTrial] = []
    outside = 0
    for past in sorted(earlier, key=lambda past: past.trial_id):
        epochs = {
            epoch: score
            for epoch, score in past.epochs
            if math.isfinite(score) and epoch <= settings.train.epochs
        }
        if past.role in BASELINES or past.state not in ("COMPLETE", "PRUNED") or not epochs:
            continue
        params = _params(past.values, settings)
        if params is None:
            outside += 1
        else:
            is_whole = max(past.epochs)[0] >= settings.train.epochs
            values = (
                objective_values(settings.tune.metrics, max(epochs.values()), past.measures)
                if is_whole
                else None
            )
            if values or (not is_whole and len(settings.tune.metrics) == 1):
                found.append(_frozen(params, distributions, epochs, values))
    return found, WarmStartSummary(taken=len(found), outside=outside)


def values_at(settings: ExperimentSettings, paths: Iterable[str]) -> dict[str, Any]:
    """Return the values the file itself gives to these paths; None where it has none."""
    tree, values = settings.model_dump(mode="json"), {}
    for path in paths:
        node: Any = tree
        for key in path.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        values[path] = node
    return values


def _params(values: Mapping[str, Any], settings: ExperimentSettings) -> dict[str, Any] | None:
    written = values_at(settings, {*settings.search, *values})
    if any(values[path] != written[path] for path in values.keys() - settings.search.keys()):
        return None
    return encode(
        {path: values.get(path, written[path]) for path in settings.search}, settings.search
    )


def _frozen(
    params: dict[str, Any],
    distributions: Mapping[str, BaseDistribution],
    epochs: Mapping[int, float],
    values: list[float] | None,
) -> FrozenTrial:
    """Return a complete trial with its values, its best epoch among them, or without any one
    stopped early.

    Of its curve only what TPE ranks a stopped trial by is kept.
    """
    last = max(epochs)
    return create_trial(
        state=TrialState.COMPLETE if values else TrialState.PRUNED,
        values=values or [epochs[last]],
        params=params,
        distributions=dict(distributions),
        intermediate_values={} if values else {last: epochs[last]},
    )
