"""The spaces of `search:` as Optuna's distributions, and values there and back. No torch, no ray.

Values are what the settings take, by dotted path: {"method.layers": ["aspp"], "optim.lr": 0.01}.
Params are what Optuna sees: a subset is one yes/no a member, named `path[member]`; choices it could
not store or tell apart are JSON texts.
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

_NEAR = 1e-8  # in steps; Optuna's own tolerance for a value to lie on the grid of a stepped range


def to_distributions(search: Mapping[str, Space]) -> dict[str, BaseDistribution]:
    """Return `param -> distribution` in the file's order."""
    found: dict[str, BaseDistribution] = {}
    for path, space in search.items():
        match space:
            case Choice():
                found[path] = CategoricalDistribution(list(dict.fromkeys(_labels(space.choice))))
            case FloatRange(ends=(low, high), step=step, log=log):
                top = high if step is None else _float_at(low, step, _float_steps(low, high, step))
                found[path] = FloatDistribution(low, top, log=log, step=step)
            case IntRange(ends=(low, high), step=step, log=log):
                found[path] = IntDistribution(low, high - (high - low) % step, log=log, step=step)
            case Subset(subset=members):
                found |= {
                    f"{path}[{member}]": CategoricalDistribution([False, True])
                    for member in members
                }
            case _:
                raise TypeError(f"no distribution for {space!r}")
    return found


def decode(params: Mapping[str, Any], search: Mapping[str, Space]) -> dict[str, Any]:
    """Return the values of Optuna's params; a subset may come out with too few or too many
    members.
    """
    return {path: _decode(params, path, space) for path, space in search.items()}


def encode(values: Mapping[str, Any], search: Mapping[str, Space]) -> dict[str, Any] | None:
    """Return Optuna's params of these values, or None where one is outside its space, missing or
    not searched.
    """
    if values.keys() != search.keys():
        return None
    params: dict[str, Any] = {}
    for path, space in search.items():
        part = _encode(values[path], path, space)
        if part is None:
            return None
        params |= part
    return params


def num_values(distribution: BaseDistribution) -> int | None:
    """Return how many values there are, or None for a stretch of real numbers."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return len(choices)
        case IntDistribution(low=low, high=high, step=step):
            return (high - low) // step + 1
        case FloatDistribution(low=low, high=high, step=float(step)):
            return _float_steps(low, high, step) + 1
    return 1 if distribution.single() else None


def walk(
    distributions: Mapping[str, BaseDistribution],
    start: int = 0,
    others: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield every combination once, from number `start` round to it again; real numbers stay as
    `others` says.
    """
    counts = {name: num_values(distribution) or 1 for name, distribution in distributions.items()}
    total = math.prod(counts.values())
    for number in range(total):
        rest, params = (start + number) % total, dict(others or {})
        for name, distribution in distributions.items():
            rest, k = divmod(rest, counts[name])
            if num_values(distribution) is not None:
                params[name] = _value_at(distribution, k)
        yield params


def _value_at(distribution: BaseDistribution, k: int) -> Any:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices[k]
        case IntDistribution(low=low, step=step):
            return low + k * step
        case FloatDistribution(low=low, step=step):
            return low if step is None else _float_at(low, step, k)
    raise TypeError(f"no values of {distribution!r}")


def _decode(params: Mapping[str, Any], path: str, space: Space) -> Any:
    match space:
        case Choice(choice=choices):
            return choices[_labels(choices).index(params[path])]
        case FloatRange(ends=(low, _), step=float(step)):
            return _float_at(low, step, round((params[path] - low) / step))
        case FloatRange():
            return float(params[path])  # some samplers draw numpy's
        case Subset(subset=members):
            return [member for member in members if params[f"{path}[{member}]"]]
    return params[path]


def _encode(value: Any, path: str, space: Space) -> dict[str, Any] | None:
    match space:
        case Choice(choice=choices):
            k = _position(value, choices)
            return None if k is None else {path: _labels(choices)[k]}
        case FloatRange(ends=(low, high), step=step):
            if not _is_number(value) or not low <= value <= high:
                return None
            if step is None:
                return {path: float(value)}
            k = round((value - low) / step)
            return (
                {path: _float_at(low, step, k)} if abs((value - low) / step - k) < _NEAR else None
            )
        case IntRange(ends=(low, high), step=step):
            fits = _is_number(value) and low <= value <= high and (value - low) % step == 0
            return {path: int(value)} if fits else None
        case Subset(subset=members, min=least, max=most):
            if (
                not isinstance(value, list | tuple)
                or not set(value) <= set(members)
                or len(set(value)) != len(value)
            ):
                return None
            fits = least <= len(value) <= (most or len(members))
            return {f"{path}[{member}]": member in value for member in members} if fits else None
    raise TypeError(f"cannot encode for {space!r}")


def _labels(choices: Sequence[Any]) -> list[Any]:
    """Return what stands for each choice: itself, unless it is a list or Optuna would take two for
    one (1 and true).
    """
    texts = [_text(choice) for choice in choices]
    plain = all(
        choice is None or isinstance(choice, bool | int | float | str) for choice in choices
    )
    return list(choices) if plain and len(set(choices)) == len(set(texts)) else texts


def _position(value: Any, choices: Sequence[Any]) -> int | None:
    """Return where `value` stands: as the very same text if it does, else as an equal (8 for
    8.0).
    """
    texts = [_text(choice) for choice in choices]
    if _text(value) in texts:
        return texts.index(_text(value))
    return next((k for k, choice in enumerate(choices) if choice == value), None)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float_steps(low: float, high: float, step: float) -> int:
    return int((Decimal(str(high)) - Decimal(str(low))) // Decimal(str(step)))


def _float_at(low: float, step: float, k: int) -> float:
    """Return low + k * step as one would write it: 0.3, not 0.30000000000000004."""
    return float(Decimal(str(low)) + k * Decimal(str(step)))
