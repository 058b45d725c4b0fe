"""The base class of every settings record, its errors, and how a value is quoted in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError

_MAX_QUOTED = 80  # characters of a value in an error line


class StrictModel(BaseModel):
    """A settings record: immutable, and unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` where a number is needed; Python, and so pydantic, takes it for 1."""
        types = list(_types(cls.model_fields[str(info.field_name)].annotation))
        values = value if isinstance(value, list | tuple) else [value]
        if bool in types or not any(isinstance(each, bool) for each in values):
            return value
        if int in types:
            raise PydanticKnownError("int_type")
        if float in types:
            raise PydanticKnownError("float_type")
        return value


def _types(annotation: Any) -> Iterator[type]:
    """Yield every type in an annotation; for a Literal, the types of its values."""
    if isinstance(annotation, type):
        yield annotation
    else:
        yield type(annotation)
    for inner in get_args(annotation):
        yield from _types(inner)


def record_in(annotation: Any) -> type[BaseModel] | None:
    """Return the record in `Record`, `Record | None` or `Annotated[Record, ...]`, else None.

    A list, tuple or dict of records is not a record.
    """
    if get_origin(annotation) in (dict, list, tuple):
        return None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    records = filter(None, map(record_in, get_args(annotation)))
    return next(records, None)


def rule_error(findings: Sequence[tuple[tuple[str, ...], str]]) -> ValidationError:
    """Return an error with one line for each (key, text)."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("rule", "{text}", {"text": text}), loc=key, input=None
        )
        for key, text in findings
    ]
    return ValidationError.from_exception_data("settings", details)


def value_error(needed: str) -> PydanticCustomError:
    """Return the error of a wrong value: what is needed. The error line adds what came."""
    return PydanticCustomError("refused", "{needed}", {"needed": needed})


def as_yaml(value: Any) -> str:
    """Return a value as it is written in YAML, cut to 80 characters."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    if len(text) <= _MAX_QUOTED:
        return text
    return f"{text[: _MAX_QUOTED - 3]}..."
