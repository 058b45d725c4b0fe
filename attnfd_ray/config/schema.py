"""The records of one experiment: every setting, its type, its range and its default. No torch, no
ray.

`crop: [H, W]` and the like are pixels, `lr` is per optimiser step, `batch_size` is global. A record
never changes once made; `config.overrides` makes changed copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from attnfd_ray import registry
from attnfd_ray.config.arch_choices import allowed_by_arch, with_defaults
from attnfd_ray.config.base import StrictModel as StrictModel
from attnfd_ray.config.base import as_yaml, rule_error, value_error
from attnfd_ray.config.metrics import Metric
from attnfd_ray.config.rules import broken_rules
from attnfd_ray.config.spaces import Space, parse_space
from attnfd_ray.config.types import (
    AboveZero,
    CountOrAuto,
    FirstWeights,
    Name,
    NumberInText,
    Positive,
    Probability,
    Range,
    Seed,
    Sha256,
    UpTo4096,
    registered,
)
from attnfd_ray.errors import ConfigError


class DataSettings(StrictModel):
    """Where the images are, and what the network sees of them."""

    name: Annotated[str, registered("dataset")]
    root: Annotated[
        str, Field(min_length=1, description="the directory of the dataset, or its URI: s3://...")
    ]
    train_split: str = "train"
    val_split: str = "val"
    test_split: Annotated[
        str | None,
        Field(
            min_length=1,
            description="scored once, at the end of a run, with its best epoch's weights",
        ),
    ] = None
    crop: Annotated[
        tuple[Positive, Positive], Field(description="height, width of a training crop, pixels")
    ]
    scale: Annotated[Range, Field(description="range of the random scale")] = (0.5, 2.0)
    scale_base: Annotated[
        Positive | None,
        Field(description="short side at scale 1, pixels; null: the image's own size"),
    ] = None
    flip: Annotated[Probability, Field(description="chance of a left-right flip")] = 0.5
    blur: Annotated[
        Probability, Field(description="chance of a Gaussian blur of sigma U(0, 1) pixels")
    ] = 0.0
    pad_label: Annotated[
        int, Field(ge=0, le=255, description="label of padded pixels; 255 is ignored")
    ] = 255
    evaluation: Annotated[
        Literal["native", "resized", "sliding"],
        Field(
            description="native: whole images, scores at the labels' own size; sliding: the same, "
            "in windows as large "
            "as the crop; resized: image and label with the crop's short side, as the released "
            "AttnFD code scores"
        ),
    ] = "native"
    eval_stride: Annotated[
        tuple[Positive, Positive] | None,
        Field(
            description="height, width from one sliding window to the next, pixels; null: two "
            "thirds of the crop"
        ),
    ] = None
    eval_scales: Annotated[
        tuple[AboveZero, ...],
        Field(min_length=1, description="scales an image is scored at; probabilities are added"),
    ] = (1.0,)
    eval_flip: Annotated[
        bool, Field(description="score every image mirrored too; probabilities are added")
    ] = False
    input_scale: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="images are shrunk by this before anything else; scores stay native",
        ),
    ] = 1.0
    val_limit: Annotated[
        Positive | None, Field(description="score only the first n images of the val split")
    ] = None
    loader_workers: Annotated[
        int, Field(ge=0, le=64, description="loading processes per training worker")
    ] = 0
    cache: Annotated[
        Literal["none", "memory", "disk"],
        Field(description="where a machine keeps decoded images for all its workers and trials"),
    ] = "none"
    cache_gib: Annotated[
        AboveZero | None,
        Field(description="how much the cache may take, GiB; null: half of what is free"),
    ] = None


class ModelSettings(StrictModel):
    """A segmentation network."""

    arch: Annotated[
        str,
        registered("arch"),
        Field(description="deeplabv3plus, smp/Class, torchvision/name or package.module:Class"),
    ] = "deeplabv3plus"
    backbone: Annotated[str, allowed_by_arch("backbone")] = "resnet18"
    width: Annotated[
        float,
        Field(gt=0, le=4, description="factor on every channel count"),
        allowed_by_arch("width"),
    ] = 1.0
    output_stride: Annotated[int, NumberInText, allowed_by_arch("output_stride")] = 16
    pretrained: Annotated[
        FirstWeights,
        Field(
            description="first weights: none, imagenet, or a file of a backbone or a whole network"
        ),
    ] = "none"
    pretrained_sha256: Annotated[
        Sha256 | None,
        Field(
            description="of the file that `pretrained` stands for; filled in when an experiment "
            "starts, and checked "
            "wherever it is loaded"
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_arch(cls, settings: Any) -> Any:
        return with_defaults(settings)


class TeacherTraining(StrictModel):
    """How a teacher is trained, once, before the first student; what is not said here is as for the
    student.
    """

    epochs: Positive
    batch_size: Positive | None = None
    lr: AboveZero | None = None
    seed: Seed = 1


class TeacherSettings(ModelSettings):
    """The network to learn from: a file of weights, or the settings to train it with."""

    checkpoint: Annotated[str | None, Field(min_length=1, description="a file of weights")] = None
    train: TeacherTraining | None = None
    min_miou: Annotated[
        Probability, Field(description="a teacher below this on the val split is refused")
    ] = 0.0


class MethodSettings(StrictModel):
    """What every distillation method has; each method adds its own."""

    name: str


def _method(value: Any) -> MethodSettings:
    """Validate `method:` by the record of the method it names."""
    if isinstance(value, MethodSettings):
        return value
    if not isinstance(value, dict):
        raise value_error("needs a section with a name, as in {name: attnfd}")
    name = value.get("name")
    if not isinstance(name, str):
        raise rule_error(
            [(("name",), "is missing" if name is None else f"needs text, got {as_yaml(name)}")]
        )
    try:
        settings = getattr(registry.load("method", name), "Settings", None)
    except ConfigError as error:
        raise rule_error([(("name",), str(error))]) from None
    if not (isinstance(settings, type) and issubclass(settings, MethodSettings)):
        raise rule_error(
            [
                (
                    ("name",),
                    f"'{name}' has no Settings, a class derived from config.schema.MethodSettings",
                )
            ]
        )
    return settings.model_validate(value)


AnyMethod = Annotated[SerializeAsAny[MethodSettings], BeforeValidator(_method)]


class OptimSettings(StrictModel):
    """SGD with momentum."""

    lr: Annotated[AboveZero, Field(description="of the backbone")] = 0.007
    head_lr_factor: Annotated[
        AboveZero, Field(description="lr of all but the backbone = lr x this")
    ] = 10.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["poly", "constant"] = "poly"
    poly_power: AboveZero = 0.9


class TrainSettings(StrictModel):
    """How long and how."""

    epochs: Positive = 50
    batch_size: Annotated[Positive, Field(description="global: over all workers")] = 16
    steps_per_epoch: Annotated[
        Positive | None, Field(description="optimiser steps; null: the whole split")
    ] = None
    seed: Seed = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: Annotated[
        bool | Literal["auto"],
        Field(
            description="memory layout; auto: on a CPU, and in half precision, which it speeds up"
        ),
    ] = "auto"
    accumulate: Annotated[
        Positive, Field(description="parts each worker's batch is computed in")
    ] = 1
    gradient_checks: Annotated[
        int,
        Field(
            ge=0,
            lt=10_000,
            description="how often an epoch the gradients of the loss terms are compared, the "
            "last time at its last "
            "step; each takes a backward pass for each term; 0: never",
        ),
    ] = 1
    sync_batchnorm: Annotated[
        bool, Field(description="share BatchNorm statistics where the device can")
    ] = True
    step_patience_s: Annotated[
        AboveZero | None,
        Field(
            description="a step that takes longer, and 20 x the run's median, is ended; null: "
            "none is"
        ),
    ] = 150.0


class ScalingSettings(StrictModel):
    """What one training run takes."""

    workers: UpTo4096 = 1
    cpus_per_worker: UpTo4096 = 1
    gpus_per_worker: Annotated[
        Literal["auto", 0, 1], NumberInText, Field(description="auto: 1 where the cluster has any")
    ] = "auto"


class TuneSettings(StrictModel):
    """How a search goes about it."""

    trials: Annotated[
        Positive, Field(description="configurations to try, baselines not counted")
    ] = 32
    baseline_trials: Annotated[
        int,
        Field(
            ge=0,
            lt=10_000,
            description="trials of the student alone: lr, weight decay and what else it shares",
        ),
    ] = 0
    metric: Annotated[
        Metric,
        Field(
            description="what to aim at; a list: trials that none beats in one without losing in "
            "another"
        ),
    ] = "val_miou"
    sampler: Annotated[
        str,
        registered("sampler"),
        Field(
            description="what proposes the next; cmaes and nsga2 resume draw for draw with "
            "concurrent: 1 only"
        ),
    ] = "tpe"
    seed: Seed = 0
    duplicates: Annotated[
        Literal["seed", "skip"],
        Field(
            description="a config that is drawn again. seed: it runs with the next train.seed; "
            "skip: another is drawn, "
            "which sampler: grid and a search over train.seed always do"
        ),
    ] = "seed"
    early_stopping: Annotated[
        str,
        registered("early_stopping"),
        Field(
            description="what ends a trial before its last epoch; none where there are several "
            "metrics"
        ),
    ] = "asha"
    grace_epochs: Annotated[
        Positive, Field(description="no trial is stopped before this epoch")
    ] = 1
    reduction_factor: Annotated[
        int, Field(ge=2, description="one trial of so many passes each rung")
    ] = 3
    concurrent: Annotated[CountOrAuto, Field(description="trials at once; auto: what fits")] = (
        "auto"
    )
    keep_weights: Annotated[
        Positive | None,
        Field(
            description="leaders whose weights stay, beside the best baseline and as written; "
            "null: all"
        ),
    ] = 5
    max_failures: Annotated[
        Positive | None,
        Field(
            description="so many failed trials of one call stop it; null: any number is borne; "
            "see docs/failures.md"
        ),
    ] = 3

    @model_validator(mode="before")
    @classmethod
    def _default_for_several_metrics(cls, settings: Any) -> Any:
        """Stop nothing early where a list of metrics is all that is said: curves are compared by
        one value.
        """
        if isinstance(settings, Mapping) and isinstance(settings.get("metric"), list | tuple):
            return {"early_stopping": "none"} | dict(settings)
        return settings

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the search aims at, one or several."""
        return (self.metric,) if isinstance(self.metric, str) else self.metric


class ExperimentSettings(StrictModel):
    """One experiment: what `train` runs as it stands and `tune` varies."""

    experiment: Name
    data: DataSettings
    teacher: TeacherSettings | None = None
    student: ModelSettings
    method: AnyMethod
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()
    scaling: ScalingSettings = ScalingSettings()
    search: dict[str, Annotated[SerializeAsAny[Space], BeforeValidator(parse_space)]] = {}
    tune: TuneSettings = TuneSettings()
    store: Annotated[str, Field(min_length=1, description="the results directory")] = "./results"

    @field_validator(
        "data", "student", "method", "optim", "train", "scaling", "search", "tune", mode="before"
    )
    @classmethod
    def _empty_section(cls, value: Any) -> Any:
        """Take `optim:` with nothing below it, or only comments, for the defaults."""
        return {} if value is None else value

    @model_validator(mode="after")
    def _rules(self) -> ExperimentSettings:
        findings = list(broken_rules(dict(self)))
        if findings:
            raise rule_error(findings)
        return self
