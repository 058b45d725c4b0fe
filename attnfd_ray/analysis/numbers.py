"""Formats numbers and values for people. Imports nothing of the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NONE = "-"


def percent(fraction: float | None) -> str:
    """Return a fraction in per cent.

    >>> percent(0.6)
    '60.00'
    """
    if fraction is None:
        return NONE
    return f"{100 * fraction:.2f}"


def decimals(value: float | None, places: int) -> str:
    """Return a number with a fixed number of decimal places.

    >>> decimals(2.0, 3)
    '2.000'
    """
    if value is None:
        return NONE
    return f"{value:.{places}f}"


def points(difference: float | None) -> str:
    """Return a difference of fractions in percentage points, always with its sign.

    >>> points(0.012)
    '+1.20'
    """
    if difference is None:
        return NONE
    return f"{100 * difference:+.2f}"


def interval(middle: str, half_width: float | None) -> str:
    """Return a formatted percentage with half the width of its interval, a fraction.

    >>> interval(percent(0.6), 0.012)
    '60.00 ± 1.20'
    """
    if half_width is None:
        return middle
    return f"{middle} ± {100 * half_width:.2f}"


def duration(seconds: float | None) -> str:
    """Return a duration in the units that fit it.

    >>> duration(12.3), duration(185), duration(97_800)
    ('12.3 s', '3 min 05 s', '27 h 10 min')
    """
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
    """Return a part of a whole, with a dash for an unknown number.

    >>> of(118, 120), of(None, 120)
    ('118/120', '-/120')
    """
    return f"{_count(part)}/{_count(whole)}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun in singular or plural.

    >>> counted(1, "seed"), counted(2, "seed")
    ('1 seed', '2 seeds')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}s"


def assignments(values: Mapping[str, Any]) -> str:
    """Return searched values, by dotted path, in one line.

    A path is shortened to its last word where no other path ends with it.

    >>> assignments({"method.layers": ["stage4"], "method.loss_weight": 2.1504})
    'layers=[stage4] loss_weight=2.15'
    """
    last_words = [_last_word(path) for path in values]
    parts: list[str] = []
    for path, value in values.items():
        name = _last_word(path)
        if last_words.count(name) > 1:
            name = path
        parts.append(f"{name}={_value(value)}")
    return " ".join(parts)


def _last_word(path: str) -> str:
    return path.rpartition(".")[2]


def _count(count: int | None) -> str:
    if count is None:
        return NONE
    return str(count)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return _section(value)
    return str(value)


def _section(section: Mapping[str, Any]) -> str:
    """Return a section of settings, such as a method, as `name(key=value)`."""
    others = assignments({key: value for key, value in section.items() if key != "name"})
    if others:
        return f"{section.get('name', '')}({others})"
    return str(section.get("name", "{}"))
