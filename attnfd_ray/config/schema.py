"""The record of one experiment, with all of its sections; import the records from here.

A record never changes once made; `config.overrides` makes changed copies. No torch, no ray.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from attnfd_ray.config.base import StrictModel, rule_error
from attnfd_ray.config.data_settings import DataSettings
from attnfd_ray.config.fields import Identity, NotSearchable
from attnfd_ray.config.method_settings import AnyMethod, MethodSettings
from attnfd_ray.config.model_settings import ModelSettings, TeacherSettings, TeacherTraining
from attnfd_ray.config.rules import broken_rules
from attnfd_ray.config.spaces import Space, parse_space
from attnfd_ray.config.train_settings import OptimSettings, ScalingSettings, TrainSettings
from attnfd_ray.config.tune_settings import TuneSettings
from attnfd_ray.config.types import Name

__all__ = [
    "AnyMethod",
    "DataSettings",
    "ExperimentSettings",
    "MethodSettings",
    "ModelSettings",
    "OptimSettings",
    "ScalingSettings",
    "StrictModel",
    "TeacherSettings",
    "TeacherTraining",
    "TrainSettings",
    "TuneSettings",
]


class ExperimentSettings(StrictModel):
    """One experiment: `train` runs it as it stands, `tune` varies it."""

    experiment: Annotated[
        Name,
        Identity.EXPERIMENT,
        NotSearchable("it names the whole search"),
        Field(
            description="The name of the experiment in its store: letters, digits, '.', '_' and "
            "'-', at most 100."
        ),
    ]
    data: Annotated[DataSettings, Field(description="The images, and how they are scored.")]
    teacher: Annotated[
        TeacherSettings | None,
        NotSearchable("every trial learns from the same teacher"),
        Field(description="The network to learn from; null: none."),
    ] = None
    student: Annotated[ModelSettings, Field(description="The network to train.")]
    method: Annotated[AnyMethod, Field(description="The distillation method.")]
    optim: Annotated[OptimSettings, Field(description="The optimiser.")] = OptimSettings()
    train: Annotated[TrainSettings, Field(description="The training.")] = TrainSettings()
    scaling: Annotated[
        ScalingSettings,
        Identity.EXPERIMENT,
        NotSearchable("every trial runs on the same worker groups"),
        Field(description="The workers and devices of one run."),
    ] = ScalingSettings()
    search: Annotated[
        dict[str, Annotated[SerializeAsAny[Space], BeforeValidator(parse_space)]],
        Identity.EXPERIMENT,
        NotSearchable("it is the search"),
        Field(
            description="The searched settings: the dotted path of each, and the values that it "
            "can take."
        ),
    ] = {}
    tune: Annotated[
        TuneSettings,
        Identity.EXPERIMENT,
        NotSearchable("it steers the search"),
        Field(description="How a search chooses, runs and stops its trials."),
    ] = TuneSettings()
    store: Annotated[
        str,
        Field(min_length=1, description="The directory of the results store."),
        Identity.NONE,
        NotSearchable("it holds the whole search"),
    ] = "./results"

    @field_validator(
        "data", "student", "method", "optim", "train", "scaling", "search", "tune", mode="before"
    )
    @classmethod
    def _empty_section(cls, value: Any) -> Any:
        """Take an empty section, as in `optim:` with nothing below it, for its defaults."""
        if value is None:
            return {}
        return value

    @model_validator(mode="after")
    def _rules(self) -> ExperimentSettings:
        findings = list(broken_rules(dict(self)))
        if findings:
            raise rule_error(findings)
        return self
