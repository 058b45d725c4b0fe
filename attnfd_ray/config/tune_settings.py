"""The section `tune:`. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from attnfd_ray.config.base import StrictModel
from attnfd_ray.config.fields import Identity
from attnfd_ray.config.metrics import Metric
from attnfd_ray.config.types import CountOrAuto, Positive, Seed, registered


class TuneSettings(StrictModel):
    """How a search chooses, runs and stops its trials."""

    trials: Annotated[
        Positive,
        Field(description="The configurations to try; baselines are not counted."),
        Identity.NONE,
    ] = 32
    baseline_trials: Annotated[
        int,
        Field(
            ge=0,
            lt=10_000,
            description="Trials of the student without distillation, which search lr, weight decay "
            "and the other settings that it shares.",
        ),
        Identity.NONE,
    ] = 0
    metric: Annotated[
        Metric,
        Field(
            description="The metric to optimise, val_miou; a list of it, student_params and "
            "latency_ms searches for their Pareto front."
        ),
    ] = "val_miou"
    sampler: Annotated[
        str,
        registered("sampler"),
        Field(
            description="The sampler that proposes trials: a short name such as tpe, or "
            "package.module:function. A search of cmaes or nsga2 resumes exactly only with "
            "concurrent: 1."
        ),
    ] = "tpe"
    seed: Annotated[Seed, Field(description="The seed of the sampler.")] = 0
    duplicates: Annotated[
        Literal["seed", "skip"],
        Field(
            description="What happens to a configuration that is proposed again: seed runs it with "
            "the next train.seed; skip asks for another, as sampler: grid and a search over "
            "train.seed always do."
        ),
        Identity.NONE,
    ] = "seed"
    early_stopping: Annotated[
        str,
        registered("early_stopping"),
        Field(
            description="The rule that ends trials before their last epoch, such as asha; several "
            "metrics need none."
        ),
    ] = "asha"
    grace_epochs: Annotated[
        Positive,
        Field(
            description="No trial is stopped before it has trained this many epochs. The default "
            "stops trials very early; a tenth of train.epochs is a good start."
        ),
    ] = 1
    reduction_factor: Annotated[
        int, Field(ge=2, description="At each rung, about one in this many trials continues.")
    ] = 3
    concurrent: Annotated[
        CountOrAuto,
        Field(description="The trials that run at once; auto: as many as fit on the cluster."),
        Identity.NONE,
    ] = "auto"
    keep_weights: Annotated[
        Positive | None,
        Field(
            description="The number of leading trials whose weights are kept, in addition to those "
            "of the best baseline and of the trial as written; null: all."
        ),
        Identity.NONE,
    ] = 5
    max_failures: Annotated[
        Positive | None,
        Field(
            description="The number of failed trials in one call that stops the search; null: no "
            "limit (see docs/failures.md)."
        ),
        Identity.NONE,
    ] = 3

    @model_validator(mode="before")
    @classmethod
    def _no_early_stopping_with_several_metrics(cls, settings: Any) -> Any:
        """Default to no early stopping for a list of metrics: it compares one metric only."""
        if isinstance(settings, Mapping) and isinstance(settings.get("metric"), list | tuple):
            return {"early_stopping": "none"} | dict(settings)
        return settings

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the search optimises, one or several."""
        if isinstance(self.metric, str):
            return (self.metric,)
        return self.metric
