"""The kinds of values that settings hold, each with its range. No torch, no ray."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from attnfd_ray import registry
from attnfd_ray.config.base import value_error
from attnfd_ray.errors import ConfigError

_COUNT_LIMIT = 2**31  # every count is below it: the store keeps counts in 32 bits
NUM_SEEDS = _COUNT_LIMIT
SEED = "train.seed"  # the setting in which two runs of one config differ


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise value_error(
            "needs letters, digits, '.', '_' or '-', at most 100, the first a letter or digit"
        )
    return text


def _number_in(value: Any) -> Any:
    """Return a text of digits, as a quoted `${VARIABLE}` gives, as a number; other values as is."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
        return int(value)
    return value


def _count_or_auto(value: Any) -> Any:
    value = _number_in(value)
    if value == "auto" or (type(value) is int and 1 <= value < _COUNT_LIMIT):
        return value
    raise value_error("needs auto or a whole number from 1 up")


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    if low > high:
        raise ValueError(f"[{low:g}, {high:g}] is empty; put the smaller end first")
    return ends


def _distinct(layers: list[str]) -> list[str]:
    if len(set(layers)) != len(layers):
        raise ValueError(f"a layer is listed twice in {layers}")
    return layers


def check_registered(kind: str, name: str) -> str:
    """Return `name` if it is a registered component; raise ValueError otherwise.

    A name outside the registry's table (`library/name`, `package.module:Attribute`) is loaded, to
    know that it exists.
    """
    try:
        registry.check(kind, name)
        if name not in registry.TABLES[kind]:
            registry.load(kind, name)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return name


def _first_weights(text: str) -> str:
    """Return `none`, `imagenet` or a path; any other bare word is taken for a typing error."""
    if text in ("none", "imagenet") or any(mark in text for mark in "/\\.~"):
        return text
    raise value_error("needs none, imagenet or a path, as in weights/net.pth")


def _digits(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{16,64}", text):
        raise value_error("needs the first 16 hex digits of a SHA-256")
    return text[:16].lower()


def registered(kind: str) -> AfterValidator:
    """Return the validator of a component's name."""
    return AfterValidator(partial(check_registered, kind))


FirstWeights = Annotated[str, AfterValidator(_first_weights)]
Sha256 = Annotated[str, AfterValidator(_digits)]
Name = Annotated[str, AfterValidator(_name)]
Positive = Annotated[int, Field(ge=1, lt=_COUNT_LIMIT)]
UpTo4096 = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=NUM_SEEDS)]
CountOrAuto = Annotated[Positive | Literal["auto"], BeforeValidator(_count_or_auto)]
NumberInText = BeforeValidator(_number_in)
# in every dataset the label of pixels that are neither learned nor scored
IGNORED = 255
Probability = Annotated[float, Field(ge=0, le=1)]
AboveZero = Annotated[float, Field(gt=0)]
Range = Annotated[tuple[AboveZero, AboveZero], AfterValidator(_ordered)]
LossWeight = Annotated[
    float,
    Field(
        ge=0,
        description="Factor on the method's loss terms; 0 trains the student without distillation.",
    ),
]
Layers = Annotated[
    list[str],
    Field(min_length=1, description="Taps at which the features of both networks are compared."),
    AfterValidator(_distinct),
]
