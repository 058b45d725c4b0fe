"""Tuning the baseline: trials of the student without its teacher. No torch, no ray.

A gain over an untuned baseline may come from tuning alone. So `tune.baseline_trials` are spent on
the baseline itself. They vary what the search varies outside `method:`, and always the learning
rate and the weight decay. The student network and the seed stay those of the file: another network
would be another baseline, and choosing a seed is not tuning. Baseline trials compete only with each
other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attnfd_ray.config.metrics import MIOU
from attnfd_ray.config.overrides import baseline_of, with_values
from attnfd_ray.config.samplers import traits_of
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.types import SEED
from attnfd_ray.errors import ConfigError

Values = Mapping[str, Any]  # by dotted path

LOSS_WEIGHT = "method.loss_weight"
_NOT_SHARED = ("method", "student", SEED)
# settings that are always varied, with factors on the file's value: the lowest and the highest are
# the ends of a range, and an exhaustive sampler tries each
_FACTORS = {
    "optim.lr": (0.25, 0.5, 1, 2, 4),
    "optim.weight_decay": (0.1, 1, 10),
}


def without_teacher(settings: ExperimentSettings) -> ExperimentSettings | None:
    """Return the experiment without distillation, or None where the method cannot be turned off.

    `method: none` is returned unchanged.
    """
    if settings.method.name == "none":
        return settings
    return baseline_of(settings)


def tuning_space(settings: ExperimentSettings) -> ExperimentSettings:
    """Return the experiment without distillation, with the space of its trials as `search:`.

    Raises ConfigError where the method cannot be turned off.
    """
    alone = without_teacher(settings)
    if alone is None:
        raise ConfigError(
            f"tune.baseline_trials: method '{settings.method.name}' has no baseline to tune, "
            "since it has no loss_weight that may be 0; needs 0"
        )
    space = {
        path: each.model_dump(mode="json")
        for path, each in settings.search.items()
        if _is_shared(path)
    }
    is_exhaustive = traits_of(settings.tune.sampler).is_exhaustive
    for path, factors in _FACTORS.items():
        section, name = path.split(".")
        value = getattr(getattr(settings, section), name)
        is_searched = path in space or section in space
        if value > 0 and not is_searched:
            space[path] = _space_around(value, factors, is_finite=is_exhaustive)
    # mIoU alone: the size of the network is not varied
    return with_values(alone, {"search": space, "tune.metric": MIOU})


def as_trained(values: Values) -> dict[str, Any]:
    """Return the values, by path, that affect training.

    With a loss weight of 0 the other settings of the method do not.
    """
    if values.get(LOSS_WEIGHT) != 0:
        return dict(values)
    return {
        path: value
        for path, value in values.items()
        if path == LOSS_WEIGHT or not path.startswith("method.")
    }


def _is_shared(path: str) -> bool:
    """Return whether students with and without a teacher both have this setting."""
    own = [other for other in _NOT_SHARED if path == other or path.startswith(f"{other}.")]
    return not own


def _space_around(value: float, factors: Sequence[float], *, is_finite: bool) -> dict[str, Any]:
    if is_finite:
        return {"choice": [value * factor for factor in factors]}
    low = value * factors[0]
    high = value * factors[-1]
    return {"float": [low, high], "log": True}
