"""The records under `search:`: which values a setting may take. No torch, no ray, no optuna."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Space(BaseModel):
    """The values one setting may take; `examples()` are those a validator must accept."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True)

    def examples(self) -> list[Any]:
        raise NotImplementedError


class Choice(Space):
    """One of these values."""

    choice: Annotated[list[Any], Field(min_length=1)]

    def examples(self) -> list[Any]:
        return list(self.choice)


class _Range(Space):
    log: bool = False

    def _check(self, name: str, low: float, high: float) -> None:
        if low > high:
            raise ValueError(f"{name}: [{low:g}, {high:g}] is empty; put the smaller end first")
        if self.log and low <= 0:
            raise ValueError(f"{name}: [{low:g}, {high:g}] with log: true needs a smaller end above 0")


class FloatRange(_Range):
    """A real number between two ends, both included."""

    ends: Annotated[tuple[float, float], Field(alias="float")]
    step: Annotated[float | None, Field(gt=0)] = None

    @model_validator(mode="after")
    def _ordered(self) -> FloatRange:
        self._check("float", *self.ends)
        if self.log and self.step is not None:
            raise ValueError("step and log: true exclude each other; leave one out")
        return self

    def examples(self) -> list[Any]:
        return list(self.ends)


class IntRange(_Range):
    """A whole number between two ends, both included."""

    ends: Annotated[tuple[int, int], Field(alias="int")]
    step: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _ordered(self) -> IntRange:
        self._check("int", *self.ends)
        if self.log and self.step != 1:
            raise ValueError("step and log: true exclude each other; leave one out")
        return self

    def examples(self) -> list[Any]:
        return list(self.ends)


class Subset(Space):
    """Some of these values, in this order; the sampler sees one yes/no for each."""

    subset: Annotated[list[str], Field(min_length=1)]
    min: Annotated[int, Field(ge=0)] = 1
    max: Annotated[int | None, Field(ge=1)] = None

    @model_validator(mode="after")
    def _possible(self) -> Subset:
        if len(set(self.subset)) != len(self.subset):
            raise ValueError("subset: a value stands there twice")
        if not self.min <= (self.max or len(self.subset)) <= len(self.subset):
            raise ValueError(f"subset: min {self.min}, max {self.max} cannot hold with {len(self.subset)} values")
        return self

    def examples(self) -> list[Any]:
        return [[value] for value in self.subset] if self.min <= 1 else [list(self.subset)]


KINDS: dict[str, type[Space]] = {"choice": Choice, "float": FloatRange, "int": IntRange, "subset": Subset}


def parse_space(value: Any) -> Space:
    """Validate one entry of `search:` by the kind of space it names."""
    if isinstance(value, Space):
        return value
    kinds = [kind for kind in KINDS if isinstance(value, dict) and kind in value]
    if len(kinds) != 1:
        raise ValueError(f"needs one of {', '.join(KINDS)}, as in {{choice: [1, 2]}}")
    return KINDS[kinds[0]].model_validate(value)
