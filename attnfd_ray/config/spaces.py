"""The entries of `search:`: the values that a setting can take. No torch, no ray, no optuna."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from attnfd_ray import registry
from attnfd_ray.config.base import StrictModel, as_yaml

_MAX_VALUES = 1000  # each value is tried on the settings before a search begins


class Space(StrictModel):
    """The values that one setting can take."""

    model_config = ConfigDict(serialize_by_alias=True)

    def examples(self) -> list[Any]:
        """Return values, the extremes among them, that the setting must accept."""
        raise NotImplementedError


class Choice(Space):
    """One of these values."""

    choice: Annotated[
        list[Any],
        Field(min_length=1, max_length=_MAX_VALUES, description="The values to choose from."),
    ]

    @model_validator(mode="after")
    def _check_distinct(self) -> Choice:
        for i, value in enumerate(self.choice):
            if any(value == other and type(value) is type(other) for other in self.choice[:i]):
                raise ValueError(f"choice: {as_yaml(value)} is listed twice; keep one")
        return self

    def examples(self) -> list[Any]:
        return list(self.choice)


class _Range(Space):
    log: Annotated[bool, Field(description="Whether values are drawn on a logarithmic scale.")] = (
        False
    )

    def _check(self, name: str, low: float, high: float) -> None:
        if low > high:
            raise ValueError(f"{name}: [{low:g}, {high:g}] is empty; put the smaller end first")
        if self.log and low <= 0:
            raise ValueError(
                f"{name}: [{low:g}, {high:g}] with log: true needs a smaller end above 0"
            )


class FloatRange(_Range):
    """A real number between two ends, both included."""

    ends: Annotated[
        tuple[float, float],
        Field(alias="float", description="The lowest and the highest value, both included."),
    ]
    step: Annotated[
        float | None,
        Field(gt=0, description="The distance between values; null: any number in the range."),
    ] = None

    @model_validator(mode="after")
    def _check_range(self) -> FloatRange:
        self._check("float", *self.ends)
        if self.log and self.step is not None:
            raise ValueError("step and log: true exclude each other; leave one out")
        return self

    def examples(self) -> list[Any]:
        """Return the ends and a value between them, which is fractional unless `step` is whole."""
        low, high = self.ends
        between = low + (self.step or (high - low) / 2**0.5)
        if low < between < high:
            return [low, high, between]
        return [low, high]


class IntRange(_Range):
    """A whole number between two ends, both included."""

    ends: Annotated[
        tuple[int, int],
        Field(alias="int", description="The lowest and the highest value, both included."),
    ]
    step: Annotated[int, Field(ge=1, description="The distance between values.")] = 1

    @model_validator(mode="after")
    def _check_range(self) -> IntRange:
        self._check("int", *self.ends)
        if self.log and self.step != 1:
            raise ValueError("step and log: true exclude each other; leave one out")
        return self

    def examples(self) -> list[Any]:
        low, high = self.ends
        if low + self.step < high:
            return [low, high, low + self.step]
        return [low, high]


class Subset(Space):
    """Some of these values, in this order; the sampler sees one yes/no per value."""

    subset: Annotated[
        list[str],
        Field(min_length=1, max_length=_MAX_VALUES, description="The values to choose from."),
    ]
    min: Annotated[int, Field(ge=0, description="The smallest number of values.")] = 1
    max: Annotated[
        int | None, Field(ge=1, description="The largest number of values; null: all of them.")
    ] = None

    @model_validator(mode="after")
    def _check_possible(self) -> Subset:
        if len(set(self.subset)) != len(self.subset):
            raise ValueError("subset: a value is listed twice; keep one")
        highest = self.max
        if highest is None:
            highest = len(self.subset)
        if not self.min <= highest <= len(self.subset):
            raise ValueError(
                f"subset: no {self.min} to {highest} of {len(self.subset)} values; change min or "
                "max"
            )
        return self

    def examples(self) -> list[Any]:
        if self.min > 1:
            return [list(self.subset)]
        single = [[value] for value in self.subset]
        if self.min == 0:
            return [[], *single]
        return single


KINDS: dict[str, type[Space]] = {
    "choice": Choice,
    "float": FloatRange,
    "int": IntRange,
    "subset": Subset,
}


def kind_of(value: Any) -> type[Space] | None:
    """Return the kind of space in an entry of `search:`; None where it names none or several."""
    if not isinstance(value, dict):
        return None
    named = [kind for name, kind in KINDS.items() if name in value]
    if len(named) != 1:
        return None
    return named[0]


def parse_space(value: Any) -> Space:
    """Validate an entry of `search:` with the record of its kind.

    Raises ValueError, pydantic's ValidationError among them.

    >>> parse_space({"float": [0.001, 0.1], "log": True}).examples()[:2]
    [0.001, 0.1]
    """
    if isinstance(value, Space):
        return value
    kind = kind_of(value)
    if kind is None:
        needed = f"needs one of {', '.join(KINDS)}, as in {{choice: [1, 2]}}"
        raise ValueError(f"{needed}, got {as_yaml(value)}{_suggested_kind(value)}")
    return kind.model_validate(value)


def _suggested_kind(value: Any) -> str:
    if not isinstance(value, dict) or len(value) != 1:
        return ""
    (name,) = value
    return registry.nearest(str(name), KINDS)
