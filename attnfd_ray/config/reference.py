"""The reference of all settings, derived from their records; `docs/settings.md` is its text.

Pure functions. The settings of the methods are read from their classes, which import torch.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter

from attnfd_ray import registry
from attnfd_ray.config.fields import NotSearchable, Setting, walk
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.spaces import KINDS

_INTRODUCTION = """\
# Settings

<!-- Written by docs/generate_settings.py from the records in attnfd_ray/config; do not edit. -->

Every setting of an experiment, by its dotted path, as `--set` and `search:` take it.
A file may also have `preset: NAME`, which fills in what the file leaves out, such as `method:`. See
[Methods](methods.md#presets).

- *Default*: a setting without a default is *required*.
- *Search*: whether `search:` can vary the setting. *In part*: only single settings of the section.
- *Identity*: what happens if you change the value.
  *training*: another config starts, with another `config_hash`; the experiment needs another name,
  or `--fresh`.
  *experiment*: `config_hash` stays the same; the experiment needs another name, or `--fresh`.
  *none*: nothing; the value may change at any time.
"""
_HEADINGS = ("Setting", "Type", "Range", "Default", "Search", "Identity", "Meaning")


class Row(NamedTuple):
    """One setting, in words; `meaning` is empty for a field without a description."""

    path: str
    type: str
    range: str
    default: str
    search: str
    identity: str
    meaning: str


class Table(NamedTuple):
    """The settings of one section."""

    title: str
    summary: str
    rows: list[Row]


def tables() -> Iterator[Table]:
    """Yield a table for the file as a whole, for each section, kind of space and method."""
    settings = list(walk(ExperimentSettings))
    keys = [setting for setting in settings if "." not in setting.path]
    yield _table("The file", ExperimentSettings, keys)
    for key in keys:
        if key.section is not None:
            inside = [each for each in settings if each.path.startswith(f"{key.path}.")]
            yield _table(f"`{key.path}:`", key.section, inside)
    section = {key.path: key for key in keys}
    for kind, space in KINDS.items():
        yield _table(f"`search:` with `{kind}`", space, walk(space, section["search"]))
    for name in sorted(registry.TABLES["method"]):
        method = registry.load("method", name)
        own = [each for each in walk(method.Settings, section["method"]) if not _is_name(each)]
        yield _table(f"`method: {{name: {name}}}`", method, own)


def _is_name(setting: Setting) -> bool:
    return setting.path == "method.name"


def _table(title: str, described: type, settings: Iterable[Setting]) -> Table:
    summary = (inspect.getdoc(described) or "").partition("\n\n")[0]
    return Table(title, " ".join(summary.split()), [_row(setting) for setting in settings])


def _row(setting: Setting) -> Row:
    schema = TypeAdapter(setting.field.rebuild_annotation()).json_schema()
    return Row(
        path=_path(setting),
        type=_type(schema),
        range=_range(schema),
        default=_default(setting),
        search=_search(setting),
        identity=setting.identity.value,
        meaning=setting.field.description or "",
    )


def _path(setting: Setting) -> str:
    """Return the path as in a file; of a space, the key beside the searched setting's."""
    if setting.field.alias:
        return setting.field.alias
    return setting.path.removeprefix("search.")


def _default(setting: Setting) -> str:
    if setting.field.is_required():
        return "required"
    value = setting.field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    return _code(value)


def _search(setting: Setting) -> str:
    for mark in setting.field.metadata:
        if isinstance(mark, NotSearchable):
            return f"no: {mark.reason}"
    if setting.not_searchable:
        return "no"
    if setting.section is not None and any(map(_is_marked, walk(setting.section))):
        return "in part"
    return "yes"


def _is_marked(setting: Setting) -> bool:
    return setting.not_searchable is not None


def _type(schema: dict[str, Any]) -> str:
    """Return the type of values that a JSON schema describes, in words."""
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(map(_code, schema["enum"]))
    if "const" in schema:
        return _code(schema["const"])
    if schema.get("type") == "array":
        return _array_type(schema)
    return _TYPES[schema.get("type", "object")]


_TYPES = {
    "boolean": "`true` or `false`",
    "integer": "whole number",
    "null": "`null`",
    "number": "number",
    "object": "section",
    "string": "text",
}
_PLURALS = {"whole number": "whole numbers", "number": "numbers", "section": "sections"}


def _array_type(schema: dict[str, Any]) -> str:
    if "prefixItems" in schema:
        item = _type(schema["prefixItems"][0])
        return f"list of {len(schema['prefixItems'])} {_PLURALS[item]}"
    if not schema["items"]:
        return "list"
    item = _type(schema["items"])
    return f"list of {_PLURALS.get(item, item.replace(' or ', ', '))}"


def _range(schema: dict[str, Any]) -> str:
    """Return the limits of the values that a JSON schema describes, in words."""
    if "anyOf" in schema:
        return "; ".join(filter(None, map(_range, schema["anyOf"])))
    if schema.get("type") == "array":
        return _array_range(schema)
    if "minLength" in schema:
        return "not empty"
    if schema.get("type") == "integer" and "exclusiveMaximum" in schema:
        schema = schema | {"maximum": schema["exclusiveMaximum"] - 1}
        schema.pop("exclusiveMaximum")
    if schema.get("maximum") == _COUNT_LIMIT - 1:  # far above any count that occurs
        schema = {key: value for key, value in schema.items() if key != "maximum"}
    if "minimum" in schema and "maximum" in schema:
        return f"{schema['minimum']} to {schema['maximum']}"
    return _limits(schema, _VALUE_LIMITS)


_COUNT_LIMIT = 2**31
_VALUE_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}
_LENGTH_LIMITS = {"minItems": "at least {} of them", "maxItems": "at most {}"}


def _array_range(schema: dict[str, Any]) -> str:
    if "prefixItems" in schema:
        item = _range(schema["prefixItems"][0])
        lengths = ""
    else:
        item = _range(schema["items"])
        lengths = _limits(schema, _LENGTH_LIMITS)
    if item:
        item = f"each {item}"
    return "; ".join(filter(None, (item, lengths)))


def _limits(schema: dict[str, Any], limits: dict[str, str]) -> str:
    return ", ".join(text.format(schema[key]) for key, text in limits.items() if key in schema)


def _code(value: Any) -> str:
    """Return a value as it is written in YAML, as code."""
    if isinstance(value, str):
        return f"`{value}`"
    return f"`{json.dumps(value)}`"


def markdown() -> str:
    """Return the reference as a page of Markdown."""
    return "\n".join([_INTRODUCTION, *map(_markdown_table, tables())])


def _markdown_table(table: Table) -> str:
    lines = [f"## {table.title}", "", table.summary, ""]
    if table.rows:
        lines += [_markdown_row(_HEADINGS), _markdown_row(["---"] * len(_HEADINGS))]
        lines += [_markdown_row((f"`{row.path}`", *row[1:])) for row in table.rows]
        lines += [""]
    return "\n".join(lines)


def _markdown_row(cells: Iterable[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
