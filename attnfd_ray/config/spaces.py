"""The records under `search:`: which values a setting may take. No torch, no ray, no optuna."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from attnfd_ray import registry
from attnfd_ray.config.base import StrictModel, as_yaml

_MANY = 1000  # values; each is tried on the settings before a search begins


class Space(StrictModel):
    """The values one setting may take; `examples()` are those a validator must accept."""

    model_config = ConfigDict(serialize_by_alias=True)

    def examples(self) -> list[Any]:
        raise NotImplementedError


class Choice(Space):
    """One of these values."""

    choice: Annotated[list[Any], Field(min_length=1, max_length=_MANY)]

    @model_validator(mode="after")
    def _once(self) -> Choice:
        for k, value in enumerate(self.choice):
            if any(value == other and type(value) is type(other) for other in self.choice[:k]):
                raise ValueError(f"choice: {as_yaml(value)} stands there twice; keep one")
        return self

    def examples(self) -> list[Any]:
        return list(self.choice)


class _Range(Space):
    log: bool = False

    def _check(self, name: str, low: float, high: float) -> None:
        if low > high:
            raise ValueError(f"{name}: [{low:g}, {high:g}] is empty; put the smaller end first")
        if self.log and low <= 0:
            raise ValueError(
                f"{name}: [{low:g}, {high:g}] with log: true needs a smaller end above 0"
            )


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
        """Return the ends and something between them, which is no whole number unless all are."""
        low, high = self.ends
        between = low + self.step if self.step else low + (high - low) / 2**0.5
        return [low, high, between] if low < between < high else [low, high]


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
        low, high = self.ends
        return [low, high, low + self.step] if low + self.step < high else [low, high]


class Subset(Space):
    """Some of these values, in this order; the sampler sees one yes/no for each."""

    subset: Annotated[list[str], Field(min_length=1, max_length=_MANY)]
    min: Annotated[int, Field(ge=0)] = 1
    max: Annotated[int | None, Field(ge=1)] = None

    @model_validator(mode="after")
    def _possible(self) -> Subset:
        if len(set(self.subset)) != len(self.subset):
            raise ValueError("subset: a value stands there twice; keep one")
        most = len(self.subset) if self.max is None else self.max
        if not self.min <= most <= len(self.subset):
            raise ValueError(
                f"subset: no {self.min} to {most} of {len(self.subset)} values; change min or max"
            )
        return self

    def examples(self) -> list[Any]:
        none: list[Any] = [] if self.min else [[]]
        return none + ([[value] for value in self.subset] if self.min <= 1 else [list(self.subset)])


KINDS: dict[str, type[Space]] = {
    "choice": Choice,
    "float": FloatRange,
    "int": IntRange,
    "subset": Subset,
}


def kind_of(value: Any) -> type[Space] | None:
    """Return the kind of space that an entry of `search:` names, None where it names none or
    several.
    """
    named = [kind for kind in KINDS if isinstance(value, dict) and kind in value]
    return KINDS[named[0]] if len(named) == 1 else None


def parse_space(value: Any) -> Space:
    """Validate one entry of `search:` by the kind of space it names."""
    if isinstance(value, Space):
        return value
    kind = kind_of(value)
    if kind is None:
        needed = f"needs one of {', '.join(KINDS)}, as in {{choice: [1, 2]}}"
        raise ValueError(f"{needed}, got {as_yaml(value)}{_meant(value)}")
    return kind.model_validate(value)


def _meant(value: Any) -> str:
    if not isinstance(value, dict) or len(value) != 1:
        return ""
    meant = registry.suggestion(str(next(iter(value))), list(KINDS))
    return meant if "did you mean" in meant else ""
