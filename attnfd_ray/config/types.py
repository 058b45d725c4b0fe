"""The kinds of values that settings hold, each with its range."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from attnfd_ray import registry
from attnfd_ray.config.base import value_error
from attnfd_ray.errors import ConfigError

_MANY = 2**31  # no count reaches this: the store keeps them in 32 bits
NUM_SEEDS = _MANY
SEED = "train.seed"  # the setting that tells two runs of one config apart


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise value_error(
            "needs letters, digits, '.', '_' or '-', at most 100, the first a letter or digit"
        )
    return text


def _number_in(value: Any) -> Any:
    """Return the whole number that a text says, as a quoted `${VARIABLE}` does; anything else as it
    is.
    """
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value) else value


def _count_or_auto(value: Any) -> Any:
    value = _number_in(value)
    if value == "auto" or (type(value) is int and 1 <= value < _MANY):
        return value
    raise value_error("needs auto or a whole number from 1 up")


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    if low > high:
        raise ValueError(f"[{low:g}, {high:g}] is empty; put the smaller end first")
    return ends


def _once(layers: list[str]) -> list[str]:
    if len(set(layers)) != len(layers):
        raise ValueError(f"a layer stands there twice in {layers}")
    return layers


def check_part(kind: str, name: str) -> str:
    """Return a name in the registry; what is not in its table is loaded, to know that it is there.
    Else ValueError.
    """
    try:
        registry.check(kind, name)
        if name not in registry.TABLES[kind]:
            registry.load(kind, name)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return name


def _first_weights(text: str) -> str:
    """Return `none`, `imagenet` or a path; a bare word is a typing error."""
    if text in ("none", "imagenet") or any(mark in text for mark in "/\\.~"):
        return text
    raise value_error("needs none, imagenet or a path, as in weights/net.pth")


def _digits(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{16,64}", text):
        raise value_error("needs the first 16 hex digits of a SHA-256")
    return text[:16].lower()


def registered(kind: str) -> AfterValidator:
    """Return the check of a name in the registry."""
    return AfterValidator(partial(check_part, kind))


FirstWeights = Annotated[str, AfterValidator(_first_weights)]
Sha256 = Annotated[str, AfterValidator(_digits)]
Name = Annotated[str, AfterValidator(_name)]
Positive = Annotated[int, Field(ge=1, lt=_MANY)]
UpTo4096 = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=NUM_SEEDS)]
CountOrAuto = Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)]
NumberInText = BeforeValidator(_number_in)
# the label of pixels that are neither learned nor scored, in every dataset
IGNORED = 255
Probability = Annotated[float, Field(ge=0, le=1)]
AboveZero = Annotated[float, Field(gt=0)]
Range = Annotated[tuple[AboveZero, AboveZero], AfterValidator(_ordered)]
LossWeight = Annotated[
    float, Field(ge=0, description="factor on a method's terms; 0 is the plain student")
]
Layers = Annotated[list[str], Field(min_length=1), AfterValidator(_once)]
