"""The two studies of a search: that of the searched settings, and that of the baseline.

Trials compete only within their study. No torch, no ray.
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
    """The settings that each trial varies, the file's values of them, and the Optuna study.

    Without a study nothing is drawn and nothing is stopped.
    """

    settings: ExperimentSettings
    file_values: dict[str, Any]
    study: OptunaStudy | None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of its trials; those of an untuned baseline have mIoU alone."""
        if self.study is None:
            return (MIOU,)
        return self.study.metrics


def searched(settings: ExperimentSettings, study: OptunaStudy) -> StudySpec:
    """Return the study of the searched settings."""
    return StudySpec(
        settings=settings, file_values=values_at(settings, settings.search), study=study
    )


def baselines(settings: ExperimentSettings, *, are_tuned: bool) -> StudySpec:
    """Return the study of the baseline.

    Raises ConfigError where it is to be tuned and the method has no baseline.
    """
    alone = without_teacher(settings) or settings
    if not are_tuned:
        return StudySpec(settings=alone, file_values={}, study=None)
    space = tuning_space(settings)
    return StudySpec(
        settings=alone, file_values=values_at(space, space.search), study=OptunaStudy(space)
    )
