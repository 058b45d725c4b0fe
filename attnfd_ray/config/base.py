"""What every settings record shares, and how a record says what it will not take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError


class StrictModel(BaseModel):
    """A settings record: unknown keys are refused, values cannot be changed after the fact."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` where a number goes; to Python, and so to pydantic, it is 1."""
        wanted = list(_types(cls.model_fields[str(info.field_name)].annotation))
        values = value if isinstance(value, list | tuple) else [value]
        if bool not in wanted and any(isinstance(each, bool) for each in values):
            if int in wanted:
                raise PydanticKnownError("int_type")
            if float in wanted:
                raise PydanticKnownError("float_type")
        return value


def _types(annotation: Any) -> Iterator[Any]:
    """Yield every type named in an annotation; those of the values, for a Literal."""
    yield annotation if isinstance(annotation, type) else type(annotation)
    for inner in get_args(annotation):
        yield from _types(inner)


def rule_error(findings: Sequence[tuple[tuple[str, ...], str]]) -> ValidationError:
    """Return the error that says so much of (key, text)."""
    return ValidationError.from_exception_data(
        "settings",
        [
            InitErrorDetails(
                type=PydanticCustomError("rule", "{text}", {"text": text}), loc=key, input=None
            )
            for key, text in findings
        ],
    )


def value_error(needed: str) -> PydanticCustomError:
    """Return the error of a value that should have been otherwise; what came is told with it."""
    return PydanticCustomError("refused", "{needed}", {"needed": needed})


def as_yaml(value: Any) -> str:
    """Return a value as one would write it in YAML, not longer than a line can bear."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
