"""Converts trials of an earlier search for the sampler of a new one. No torch, no ray.

Earlier trials are not trials of the new search: they are not counted, are never its best, and may
be drawn again. They take no part in early stopping either. The sampler only ranks trials, but a
pruner compares values, and those of a search with other settings may be on another level. Its
thresholds would then stop every new trial, or none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from attnfd_ray.config.metrics import LATENCY
from attnfd_ray.config.samplers import LEARNING, any_of, traits_of
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.search.distributions import Distributions, Params, Values, encode
from attnfd_ray.search.objectives import objective_values
from attnfd_ray.search.records import PastTrial, WarmStartSummary
from attnfd_ray.terms import BASELINES


def check_sampler(settings: ExperimentSettings) -> None:
    """Raise ConfigError where the sampler cannot learn from trials of an earlier search."""
    name = settings.tune.sampler
    if LATENCY in settings.tune.metrics:
        raise ConfigError(
            f"tune.metric: {LATENCY} of earlier trials may be another machine's; leave "
            f"--warm-start or {LATENCY} out"
        )
    if not traits_of(name).learns_from_other_trials:
        raise ConfigError(
            f"tune.sampler: '{name}' learns nothing from a warm start; needs {any_of(LEARNING)}"
        )


def to_frozen_trials(
    earlier: Iterable[PastTrial],
    settings: ExperimentSettings,
    distributions: Distributions,
) -> tuple[list[FrozenTrial], WarmStartSummary]:
    """Return the earlier trials in this space as Optuna's, and how many are inside and outside.

    A setting that the earlier search did not vary has the file's own value. A setting that this
    search does not vary must have had it. With several metrics only trials that ran for the whole
    budget are taken: Optuna would ignore the others.
    """
    metrics = settings.tune.metrics
    trials: list[FrozenTrial] = []
    outside = 0
    for past in sorted(earlier, key=lambda past: past.trial_id):
        epochs = _comparable_epochs(past, settings)
        has_result = past.state in ("COMPLETE", "PRUNED")
        if past.role in BASELINES or not has_result or not epochs:
            continue
        params = _params(past.values, settings)
        if params is None:
            outside += 1
            continue
        last_epoch, _ = max(past.epochs)
        is_whole = last_epoch >= settings.train.epochs
        if is_whole:
            values = objective_values(metrics, max(epochs.values()), past.measures)
            if values is not None:
                trials.append(_complete_trial(params, distributions, values))
        elif len(metrics) == 1:
            trials.append(_pruned_trial(params, distributions, epochs))
    return trials, WarmStartSummary(taken=len(trials), outside=outside)


def values_at(settings: ExperimentSettings, paths: Iterable[str]) -> dict[str, Any]:
    """Return the file's own values at these dotted paths; None where there is none."""
    tree = settings.model_dump(mode="json")
    return {path: _value_at(tree, path) for path in paths}


def _value_at(tree: dict[str, Any], path: str) -> Any:
    node: Any = tree
    for key in path.split("."):
        if not isinstance(node, dict):
            return None
        node = node.get(key)
    return node


def _comparable_epochs(past: PastTrial, settings: ExperimentSettings) -> dict[int, float]:
    """Return the val_miou by epoch, where it is finite and within this search's budget."""
    return {
        epoch: score
        for epoch, score in past.epochs
        if math.isfinite(score) and epoch <= settings.train.epochs
    }


def _params(values: Values, settings: ExperimentSettings) -> Params | None:
    """Return Optuna's params of an earlier trial's values, or None where outside this space."""
    file_values = values_at(settings, {*settings.search, *values})
    not_searched = values.keys() - settings.search.keys()
    if any(values[path] != file_values[path] for path in not_searched):
        return None
    all_values = file_values | dict(values)
    searched = {path: all_values[path] for path in settings.search}
    return encode(searched, settings.search)


def _complete_trial(
    params: Params, distributions: Distributions, values: list[float]
) -> FrozenTrial:
    """Return a complete trial without its curve, so that no pruner compares with it."""
    return create_trial(
        state=TrialState.COMPLETE,
        values=values,
        params=params,
        distributions=distributions,
        intermediate_values={},
    )


def _pruned_trial(
    params: Params,
    distributions: Distributions,
    epochs: Mapping[int, float],
) -> FrozenTrial:
    """Return a trial that was stopped early, with its last epoch: TPE ranks it by that one."""
    last = max(epochs)
    return create_trial(
        state=TrialState.PRUNED,
        values=[epochs[last]],
        params=params,
        distributions=distributions,
        intermediate_values={last: epochs[last]},
    )
