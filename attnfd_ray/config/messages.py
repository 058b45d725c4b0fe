"""The errors of a tree of values, and the one-line message of each: what came, what is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from attnfd_ray import registry
from attnfd_ray.config import preset
from attnfd_ray.config.base import as_yaml, record_in, rule_error
from attnfd_ray.config.rules import broken_rules
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.spaces import kind_of
from attnfd_ray.config.yaml_nodes import Key


def errors_in(tree: Mapping[str, Any]) -> list[ErrorDetails]:
    """Return every error in `tree`, broken rules between valid sections included."""
    try:
        ExperimentSettings.model_validate(tree)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        known = {details["loc"] for details in errors}
        # pydantic checks the rules only where every section is valid
        broken = rule_error(list(broken_rules(dict(_valid_sections(tree)))))
        rules = broken.errors(include_url=False)
        return errors + [details for details in rules if details["loc"] not in known]
    return []


def _valid_sections(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of each section that is valid by itself."""
    for name, (adapter, default) in _sections().items():
        value = tree.get(name)
        if value is None:
            value = default
        with suppress(ValidationError):
            yield name, adapter.validate_python(value)


@cache
def _sections() -> dict[str, tuple[TypeAdapter[Any], Any]]:
    """Return name -> (validator, default) of each section; {} where there is no default."""
    sections = {}
    for name, field in ExperimentSettings.model_fields.items():
        default = field.get_default()
        if field.is_required():
            default = {}
        sections[name] = (TypeAdapter(field.rebuild_annotation()), default)
    return sections


def message(details: ErrorDetails, tree: Mapping[str, Any]) -> str:
    """Return the message of an error: what is needed, and what came instead."""
    match details["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            name = str(details["loc"][-1])
            hint = registry.suggestion(name, _keys_beside(details["loc"], tree))
            return f"unknown key '{name}'{hint}"
        case "value_error" | "rule":
            return details["msg"].removeprefix("Value error, ")
    text = f"{_needed(details)}, got {as_yaml(details['input'])}"
    if details["type"] == "string_type" and isinstance(details["input"], int | float):
        text += "; put it in quotes"
    return text


def _needed(details: ErrorDetails) -> str:
    kind = details["type"]
    context = details.get("ctx", {})
    if kind in _NEEDED:
        return _NEEDED[kind]
    if kind in _NEEDED_LIMIT:
        text, limit = _NEEDED_LIMIT[kind]
        return f"{text} {context[limit]:.12g}"
    match kind:
        case "literal_error":
            return f"needs {context['expected']}"
        case "too_short":
            return f"needs at least {_values(context['min_length'])}"
        case "too_long":
            return f"needs at most {_values(context['max_length'])}"
        case "refused":  # see `value_error`
            return details["msg"]
    return f"{details['msg'][0].lower()}{details['msg'][1:]}"


# type of pydantic's error -> what is needed
_NEEDED = {
    "int_type": "needs a whole number",
    "int_parsing": "needs a whole number",
    "int_from_float": "needs a whole number",
    "int_parsing_size": "needs a whole number",
    "float_type": "needs a number",
    "float_parsing": "needs a number",
    "finite_number": "needs a number",
    "bool_type": "needs true or false",
    "bool_parsing": "needs true or false",
    "string_type": "needs text",
    "string_too_short": "needs text",
    "tuple_type": "needs a list, as in [1, 2]",
    "list_type": "needs a list, as in [1, 2]",
    "model_type": "needs a section of settings",
    "model_attributes_type": "needs a section of settings",
    "dict_type": "needs a section of settings",
}
# type of pydantic's error -> what is needed, and the name of the limit in the error's context
_NEEDED_LIMIT = {
    "greater_than_equal": ("needs at least", "ge"),
    "greater_than": ("needs more than", "gt"),
    "less_than_equal": ("needs at most", "le"),
    "less_than": ("needs less than", "lt"),
}


def _values(count: int) -> str:
    if count == 1:
        return "1 value"
    return f"{count} values"


def dotted(key: Key) -> str:
    """Return a key as it is written: `data.crop[0]`."""
    text = ""
    for step in key:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}"
    return text.removeprefix(".")


def _keys_beside(key: Key, tree: Mapping[str, Any]) -> list[str]:
    """Return the keys that exist in the section around `key`."""
    if len(key) == 1:
        return [*ExperimentSettings.model_fields, preset.KEY]
    record: Any = ExperimentSettings
    inside = key[:-1]
    if inside[0] == "method":
        record = registry.load("method", tree["method"]["name"]).Settings
        inside = inside[1:]
    elif inside[0] == "search":
        record = kind_of(tree["search"][inside[1]])
        inside = inside[2:]
    for step in inside:
        field = _fields(record).get(step)
        record = None
        if field is not None:
            record = record_in(field.annotation)
    return [field.alias or name for name, field in _fields(record).items()]


def _fields(record: Any) -> dict[Any, FieldInfo]:
    """Return the fields of a record; none of anything else, as a user's own method may have."""
    return getattr(record, "model_fields", {})
