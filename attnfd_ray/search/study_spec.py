"""Trials that compete with one another: those of a search, and apart from them its baselines. No
torch, no ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attnfd_ray.config.metrics import MIOU
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.search.baseline import tuning_space, without_teacher
from attnfd_ray.search.optuna_study import OptunaStudy
from attnfd_ray.search.warm_start import values_at


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """What each trial changes, the values it has of that, and their sampler and early stopping.

    Without an advisor there is nothing to draw, and nothing is stopped.
    """

    settings: ExperimentSettings
    file_values: dict[str, Any]
    study: OptunaStudy | None

    @property
    def metrics(self) -> tuple[str, ...]:
        """What its trials are told to be worth; the student alone has nothing but its mIoU to
        choose by.
        """
        return (MIOU,) if self.study is None else self.study.metrics


def searched(settings: ExperimentSettings, advisor: OptunaStudy) -> StudySpec:
    """Return the series of what is searched."""
    return StudySpec(
        settings=settings, file_values=values_at(settings, settings.search), study=advisor
    )


def baselines(settings: ExperimentSettings, *, are_tuned: bool) -> StudySpec:
    """Return the series of the student alone. Raises ConfigError where it is to be tuned and there
    is none.
    """
    if not are_tuned:
        return StudySpec(settings=without_teacher(settings) or settings, file_values={}, study=None)
    space = tuning_space(settings)
    return StudySpec(
        settings=without_teacher(settings) or settings,
        file_values=values_at(space, space.search),
        study=OptunaStudy(space),
    )
