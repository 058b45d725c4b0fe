"""The baseline tuned: trials of the student alone, over the settings that it shares with the rest.
No torch, no ray.

A gain over a baseline that nobody tuned may be a gain of tuning. So `tune.baseline_trials` of its
own try what the search varies outside `method:`, and learning rate and weight decay in any case.
Another student is no baseline, and another seed no tuning: both stay the file's. They compete with
baselines alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnfd_ray.config.metrics import MIOU
from attnfd_ray.config.overrides import baseline_of, with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.types import SEED
from attnfd_ray.errors import ConfigError

LOSS_WEIGHT = "method.loss_weight"
_NOT_SHARED = ("method", "student", SEED)
# what is varied where the file does not: how far down and up from its value, and the steps of a
# grid between
_TUNED = {"optim.lr": (0.25, 0.5, 1, 2, 4), "optim.weight_decay": (0.1, 1, 10)}


def without_teacher(settings: ExperimentSettings) -> ExperimentSettings | None:
    """Return the student without its teacher, which `method: none` is already; None where the
    method cannot do so.
    """
    return settings if settings.method.name == "none" else baseline_of(settings)


def tuning_space(settings: ExperimentSettings) -> ExperimentSettings:
    """Return the student alone with the space of its trials as `search:`. Raises ConfigError where
    there is none.
    """
    start = without_teacher(settings)
    if start is None:
        raise ConfigError(
            f"tune.baseline_trials: method '{settings.method.name}' has no baseline to tune, "
            "since it has no "
            "loss_weight that may be 0; needs 0"
        )
    space = {
        path: each.model_dump(mode="json")
        for path, each in settings.search.items()
        if _is_shared(path)
    }
    for path, factors in _TUNED.items():
        section, name = path.split(".")
        value = getattr(getattr(settings, section), name)
        if value > 0 and not space.keys() & {section, path}:
            space[path] = _around(value, factors, finite=settings.tune.sampler == "grid")
    return with_values(start, {"search": space, "tune.metric": MIOU})  # its size is no choice


def as_trained(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a difference of values by path: without a loss weight the method's other
    settings make none.
    """
    if values.get(LOSS_WEIGHT) != 0:
        return dict(values)
    return {
        path: value
        for path, value in values.items()
        if path == LOSS_WEIGHT or not path.startswith("method.")
    }


def _is_shared(path: str) -> bool:
    return not any(path == other or path.startswith(f"{other}.") for other in _NOT_SHARED)


def _around(value: float, factors: tuple[float, ...], *, finite: bool) -> dict[str, Any]:
    if finite:
        return {"choice": [value * factor for factor in factors]}
    return {"float": [value * factors[0], value * factors[-1]], "log": True}
