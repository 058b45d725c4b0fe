"""Converts the spaces of `search:` to Optuna's distributions, and values both ways.

No torch, no ray. "Values" are those of the settings, by dotted path, such as
{"method.layers": ["aspp"], "optim.lr": 0.01}. "Params" are those of Optuna. A subset becomes one
boolean per member, named `path[member]`. Choices that Optuna could not store, or would take for
equal, become JSON texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from attnfd_ray.config.spaces import Choice, FloatRange, IntRange, Space, Subset

# in steps: Optuna's own tolerance for a value to lie on the grid of a stepped range
_TOLERANCE = 1e-8

SearchSpace = Mapping[str, Space]  # by dotted path
Values = Mapping[str, Any]  # by dotted path, as the settings take them
Params = dict[str, Any]  # by Optuna's names
Distributions = dict[str, BaseDistribution]  # by Optuna's names


def to_distributions(search: SearchSpace) -> Distributions:
    """Return the distribution of each param, in the file's order."""
    distributions: Distributions = {}
    for path, space in search.items():
        distributions |= _distributions_of(path, space)
    return distributions


def decode(params: Mapping[str, Any], search: SearchSpace) -> dict[str, Any]:
    """Return the values of Optuna's params. A subset may have too few or too many members."""
    return {path: _decode(params, path, space) for path, space in search.items()}


def encode(values: Values, search: SearchSpace) -> Params | None:
    """Return Optuna's params of these values.

    None where a value is outside its space, is missing, or belongs to a setting not searched.
    """
    if values.keys() != search.keys():
        return None
    params: Params = {}
    for path, space in search.items():
        encoded = _encode(values[path], path, space)
        if encoded is None:
            return None
        params |= encoded
    return params


def num_values(distribution: BaseDistribution) -> int | None:
    """Return how many values there are, or None for a continuous range."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return len(choices)
        case IntDistribution(low=low, high=high, step=step):
            return (high - low) // step + 1
        case FloatDistribution(low=low, high=high, step=float(step)):
            return _num_steps(low, high, step) + 1
    if distribution.single():
        return 1
    return None


def walk(
    distributions: Mapping[str, BaseDistribution],
    start: int = 0,
    others: Mapping[str, Any] | None = None,
) -> Iterator[Params]:
    """Yield every combination once, from number `start` to the last, then from the first.

    Params of continuous ranges have the values in `others`.
    """
    counts = {
        name: num_values(distribution) or 1  # a continuous range has its value in `others`
        for name, distribution in distributions.items()
    }
    total = math.prod(counts.values())
    for offset in range(total):
        number = (start + offset) % total
        params = dict(others or {})
        for name, distribution in distributions.items():
            number, position = divmod(number, counts[name])
            if num_values(distribution) is not None:
                params[name] = _value_at(distribution, position)
        yield params


def _distributions_of(path: str, space: Space) -> Distributions:
    match space:
        case Choice():
            distinct = list(dict.fromkeys(_labels(space.choice)))
            return {path: CategoricalDistribution(distinct)}
        case FloatRange(ends=(low, high), step=float(step)):
            highest = _float_at(low, step, _num_steps(low, high, step))
            return {path: FloatDistribution(low, highest, step=step)}
        case FloatRange(ends=(low, high), log=log):
            return {path: FloatDistribution(low, high, log=log)}
        case IntRange(ends=(low, high), step=step, log=log):
            highest_int = high - (high - low) % step
            return {path: IntDistribution(low, highest_int, log=log, step=step)}
        case Subset(subset=members):
            return {
                _member_param(path, member): CategoricalDistribution([False, True])
                for member in members
            }
    raise TypeError(f"no distribution for {space!r}")


def _member_param(path: str, member: Any) -> str:
    return f"{path}[{member}]"


def _value_at(distribution: BaseDistribution, position: int) -> Any:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices[position]
        case IntDistribution(low=low, step=step):
            return low + position * step
        case FloatDistribution(low=low, step=float(step)):
            return _float_at(low, step, position)
        case FloatDistribution(low=low):
            return low
    raise TypeError(f"no values of {distribution!r}")


def _decode(params: Mapping[str, Any], path: str, space: Space) -> Any:
    match space:
        case Choice(choice=choices):
            return choices[_labels(choices).index(params[path])]
        case FloatRange(ends=(low, _), step=float(step)):
            position = round((params[path] - low) / step)
            return _float_at(low, step, position)
        case FloatRange():
            return float(params[path])  # some samplers draw NumPy's floats
        case Subset(subset=members):
            return [member for member in members if params[_member_param(path, member)]]
    return params[path]


def _encode(value: Any, path: str, space: Space) -> Params | None:
    match space:
        case Choice(choice=choices):
            return _encode_choice(value, path, choices)
        case FloatRange():
            return _encode_float(value, path, space)
        case IntRange():
            return _encode_int(value, path, space)
        case Subset():
            return _encode_subset(value, path, space)
    raise TypeError(f"cannot encode for {space!r}")


def _encode_choice(value: Any, path: str, choices: Sequence[Any]) -> Params | None:
    position = _position(value, choices)
    if position is None:
        return None
    return {path: _labels(choices)[position]}


def _encode_int(value: Any, path: str, space: IntRange) -> Params | None:
    low, high = space.ends
    if not _is_between(value, low, high):
        return None
    if (value - low) % space.step:
        return None
    return {path: int(value)}


def _encode_float(value: Any, path: str, space: FloatRange) -> Params | None:
    low, high = space.ends
    if not _is_between(value, low, high):
        return None
    if space.step is None:
        return {path: float(value)}
    steps = (value - low) / space.step
    position = round(steps)
    if abs(steps - position) >= _TOLERANCE:
        return None
    return {path: _float_at(low, space.step, position)}


def _encode_subset(value: Any, path: str, space: Subset) -> Params | None:
    if not isinstance(value, list | tuple):
        return None
    chosen = set(value)
    has_repeats = len(chosen) != len(value)
    if has_repeats or not chosen <= set(space.subset):
        return None
    most = space.max or len(space.subset)
    if not space.min <= len(value) <= most:
        return None
    return {_member_param(path, member): member in value for member in space.subset}


def _labels(choices: Sequence[Any]) -> list[Any]:
    """Return what Optuna sees of each choice: the choice itself where possible, else its JSON text.

    Optuna stores only plain values, and takes some for equal that are not (1 and true).
    """
    texts = [_text(choice) for choice in choices]
    for choice in choices:
        if not isinstance(choice, bool | int | float | str | None):
            return texts
    has_equal = len(set(choices)) < len(set(texts))
    if has_equal:
        return texts
    return list(choices)


def _position(value: Any, choices: Sequence[Any]) -> int | None:
    """Return the position of a value: of the same JSON text, else of an equal value (8 for 8.0)."""
    texts = [_text(choice) for choice in choices]
    text = _text(value)
    if text in texts:
        return texts.index(text)
    for position, choice in enumerate(choices):
        if choice == value:
            return position
    return None


def _text(value: Any) -> str:
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        default=str,
    )


def _is_between(value: Any, low: float, high: float) -> bool:
    """Return whether a value is a number from `low` to `high`; booleans are not numbers."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and low <= value <= high


def _num_steps(low: float, high: float, step: float) -> int:
    width = _decimal(high) - _decimal(low)
    return int(width // _decimal(step))


def _float_at(low: float, step: float, position: int) -> float:
    """Return low + position * step in its shortest form: 0.3, not 0.30000000000000004."""
    return float(_decimal(low) + position * _decimal(step))


def _decimal(number: float) -> Decimal:
    """Return the decimal number as written, without binary rounding."""
    return Decimal(str(number))
