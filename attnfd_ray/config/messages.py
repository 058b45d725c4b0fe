"""What the settings have against a tree of values, and each complaint in one line: what came and
what is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from attnfd_ray import registry
from attnfd_ray.config import preset
from attnfd_ray.config.base import as_yaml, rule_error
from attnfd_ray.config.rules import broken_rules
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.spaces import kind_of
from attnfd_ray.config.yaml_nodes import Key


def errors_in(tree: Mapping[str, Any]) -> list[ErrorDetails]:
    """Return everything the settings have against `tree`, rules between sound sections included."""
    try:
        ExperimentSettings.model_validate(tree)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        known = {details["loc"] for details in errors}
        rules = rule_error(list(broken_rules(dict(_sound_sections(tree))))).errors(
            include_url=False
        )
        return errors + [details for details in rules if details["loc"] not in known]
    return []


def _sound_sections(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of each section that is valid by itself: pydantic looks at the rules only
    if all are.
    """
    for name, (adapter, default) in _sections().items():
        with suppress(ValidationError):
            yield name, adapter.validate_python(default if tree.get(name) is None else tree[name])


@cache
def _sections() -> dict[str, tuple[TypeAdapter[Any], Any]]:
    fields = ExperimentSettings.model_fields.items()
    return {
        name: (
            TypeAdapter(field.rebuild_annotation()),
            {} if field.is_required() else field.default,
        )
        for name, field in fields
    }


def message(details: ErrorDetails, tree: Mapping[str, Any]) -> str:
    """Say in one line what came and what is needed."""
    got, context = f"got {as_yaml(details['input'])}", details.get("ctx", {})
    match details["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            name = str(details["loc"][-1])
            return f"unknown key '{name}'{registry.suggestion(name, _keys_beside(details['loc'], tree))}"
        case "literal_error":
            return f"needs {context['expected']}, {got}"
        case "value_error" | "rule":
            return details["msg"].removeprefix("Value error, ")
        case "refused":
            return f"{details['msg']}, {got}"
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            return f"needs a whole number, {got}"
        case "float_type" | "float_parsing" | "finite_number":
            return f"needs a number, {got}"
        case "bool_type" | "bool_parsing":
            return f"needs true or false, {got}"
        case "string_type":
            quotes = "; put it in quotes" if isinstance(details["input"], int | float) else ""
            return f"needs text, {got}{quotes}"
        case "string_too_short":
            return f"needs text, {got}"
        case "greater_than_equal":
            return f"needs at least {context['ge']:.12g}, {got}"
        case "greater_than":
            return f"needs more than {context['gt']:.12g}, {got}"
        case "less_than_equal":
            return f"needs at most {context['le']:.12g}, {got}"
        case "less_than":
            return f"needs less than {context['lt']:.12g}, {got}"
        case "tuple_type" | "list_type":
            return f"needs a list, as in [1, 2], {got}"
        case "too_short":
            return f"needs at least {_values(context['min_length'])}, {got}"
        case "too_long":
            return f"needs at most {_values(context['max_length'])}, {got}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"needs a section of settings, {got}"
        case _:
            text = details["msg"]
            return f"{text[0].lower()}{text[1:]}, {got}"


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"


def dotted(key: Key) -> str:
    """Return a key as one writes it: `data.crop[0]`."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in key
    ).removeprefix(".")


def _keys_beside(key: Key, tree: Mapping[str, Any]) -> list[str]:
    """Return the keys that the section around `key` knows."""
    record: Any = ExperimentSettings
    inside = key[:-1]
    if inside[:1] == ("method",):
        record, inside = registry.load("method", tree["method"]["name"]).Settings, inside[1:]
    elif inside[:1] == ("search",):
        record, inside = kind_of(tree["search"][inside[1]]), inside[2:]
    for part in inside:
        field = _fields(record).get(part)
        record = field and _record_in(field.annotation)
    known = [field.alias or name for name, field in _fields(record).items()]
    return known if key[:-1] else [*known, preset.KEY]


def _fields(record: Any) -> dict[Any, FieldInfo]:
    """Return the fields of a record; of anything else, which someone's own method may hold,
    none.
    """
    return getattr(record, "model_fields", {})


def _record_in(annotation: Any) -> type[BaseModel] | None:
    """Return the record inside `StrictModel`, `StrictModel | None` or `Annotated[...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((record for arg in get_args(annotation) if (record := _record_in(arg))), None)
