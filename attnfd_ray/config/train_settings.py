"""The sections `optim:`, `train:` and `scaling:`. No torch, no ray."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from attnfd_ray.config.base import StrictModel
from attnfd_ray.config.fields import Identity, NotSearchable
from attnfd_ray.config.types import AboveZero, NumberInText, Positive, Seed, UpTo4096


class OptimSettings(StrictModel):
    """The optimiser, SGD with momentum, and its learning rate."""

    lr: Annotated[AboveZero, Field(description="The learning rate of the backbone.")] = 0.007
    head_lr_factor: Annotated[
        AboveZero,
        Field(description="The learning rate of everything but the backbone is lr times this."),
    ] = 10.0
    momentum: Annotated[float, Field(ge=0, lt=1, description="The momentum of SGD.")] = 0.9
    nesterov: Annotated[bool, Field(description="Whether the momentum is Nesterov's.")] = False
    weight_decay: Annotated[
        float, Field(ge=0, description="The weight decay, as torch's SGD defines it.")
    ] = 5e-4
    schedule: Annotated[
        Literal["poly", "constant"],
        Field(
            description="How the learning rate changes with each step: poly lowers it towards 0."
        ),
    ] = "poly"
    poly_power: Annotated[AboveZero, Field(description="The exponent of the poly schedule.")] = 0.9


class TrainSettings(StrictModel):
    """How long a run trains, and how it computes."""

    epochs: Annotated[
        Positive,
        NotSearchable("trials of different budgets cannot be compared"),
        Field(description="The epochs of a run."),
    ] = 50
    batch_size: Annotated[
        Positive, Field(description="The global batch size: images per step over all workers.")
    ] = 16
    steps_per_epoch: Annotated[
        Positive | None,
        Field(description="The optimiser steps of an epoch; null: once through the train split."),
    ] = None
    seed: Annotated[
        Seed,
        Identity.EXPERIMENT,
        Field(description="The seed of first weights, data order and augmentation."),
    ] = 1
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], Field(description="The precision of the computation.")
    ] = "fp32"
    channels_last: Annotated[
        bool | Literal["auto"],
        Field(
            description="Whether images are stored channels last in memory; auto: on a CPU and in "
            "half precision, where it is faster."
        ),
    ] = "auto"
    accumulate: Annotated[
        Positive, Field(description="The parts in which each worker computes its share of a batch.")
    ] = 1
    gradient_checks: Annotated[
        int,
        Field(
            ge=0,
            lt=10_000,
            description="How often in an epoch the gradients of the loss terms are compared, the "
            "last time at its last step; each check takes one backward pass per term; 0: never.",
        ),
        Identity.NONE,
    ] = 1
    sync_batchnorm: Annotated[
        bool,
        Field(
            description="Whether workers share BatchNorm statistics, on devices that support it."
        ),
    ] = True
    step_patience_s: Annotated[
        AboveZero | None,
        Field(
            description="A step is ended when it takes longer than this many seconds and longer "
            "than 20 times the run's median; null: never."
        ),
        Identity.NONE,
    ] = 150.0


class ScalingSettings(StrictModel):
    """The workers and devices of one run."""

    workers: Annotated[UpTo4096, Field(description="The workers of a run.")] = 1
    cpus_per_worker: Annotated[UpTo4096, Field(description="The CPU cores of a worker.")] = 1
    gpus_per_worker: Annotated[
        Literal["auto", 0, 1],
        NumberInText,
        Field(description="The GPUs of a worker; auto: 1 where the cluster has any, else 0."),
    ] = "auto"
