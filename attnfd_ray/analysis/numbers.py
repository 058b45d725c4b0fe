"""Numbers and values as people read them. Imports nothing of the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NONE = "-"


def percent(fraction: float | None) -> str:
    """Return 0.6 as `60.00`."""
    return NONE if fraction is None else f"{100 * fraction:.2f}"


def decimals(value: float | None, places: int) -> str:
    """Return a number with so many places after the point."""
    return NONE if value is None else f"{value:.{places}f}"


def points(difference: float | None) -> str:
    """Return a difference of fractions in percentage points, always with its sign: 0.012 as
    `+1.20`.
    """
    return NONE if difference is None else f"{100 * difference:+.2f}"


def interval(middle: str, half_width: float | None) -> str:
    """Return a printed percentage or difference with half the width of its interval: `60.00 ±
    1.20`.
    """
    return middle if half_width is None else f"{middle} ± {100 * half_width:.2f}"


def duration(seconds: float | None) -> str:
    """Return seconds as `12.3 s`, `3 min 05 s` or `27 h 10 min`."""
    if seconds is None:
        return NONE
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def of(part: int | None, whole: int | None) -> str:
    """Return `118/120`, with a dash for what is not known."""
    return f"{NONE if part is None else part}/{NONE if whole is None else whole}"


def counted(count: int, noun: str) -> str:
    """Return `1 seed` or `2 seeds`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def assignments(values: Mapping[str, Any]) -> str:
    """Return searched values as `layers=[stage4, aspp] loss_weight=2.15`; a path is shortened if no
    other ends so.
    """
    leaves = [path.rpartition(".")[2] for path in values]
    return " ".join(
        f"{leaf if leaves.count(leaf) == 1 else path}={_value(value)}"
        for leaf, (path, value) in zip(leaves, values.items(), strict=True)
    )


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        rest = assignments({name: inner for name, inner in value.items() if name != "name"})
        return f"{value.get('name', '')}({rest})" if rest else str(value.get("name", "{}"))
    return f"[{', '.join(map(_value, value))}]" if isinstance(value, list) else str(value)
