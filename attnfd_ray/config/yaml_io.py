"""The YAML of settings files: YAML 1.1 as PyYAML has it, but `1e-3` is a number, a date is text."""

from __future__ import annotations

import re
from typing import Any

import yaml

_FLOAT = "tag:yaml.org,2002:float"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_STRING = "tag:yaml.org,2002:str"
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")


class _Dialect(yaml.resolver.Resolver):
    """Decides the type of a word without quotes."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.resolver.Resolver.yaml_implicit_resolvers.items()
    }


_Dialect.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+.0123456789"))


class Loader(_Dialect, yaml.SafeLoader):
    """Reads the dialect."""


class _Dumper(_Dialect, yaml.SafeDumper):
    """Writes the dialect: quotes a text that would be read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        if data.isprintable():
            return self.represent_scalar(_STRING, data)
        # without quotes PyYAML writes a next-line character that it reads back as a blank
        return self.represent_scalar(_STRING, data, style='"')


_Dumper.add_representer(str, _Dumper.represent_str)


class NotYAML(Exception):
    """A text that is not YAML; `line` is where reading failed."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def compose(text: str) -> yaml.Node | None:
    """Return the root node of a text, None where it is empty. Raises NotYAML."""
    try:
        return yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error, text) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NotYAML(line, f"{error.reason}: {chr(error.character)!r}") from None
    except RecursionError:
        raise NotYAML(1, "nested too deeply") from None


def _not_yaml(error: yaml.MarkedYAMLError, text: str) -> NotYAML:
    line = 1
    mark = error.problem_mark or error.context_mark
    if mark:
        line = mark.line + 1
    why = ": ".join(part for part in (error.context, error.problem) if part)
    if "${" in "".join(text.splitlines()[line - 1 : line]):
        why += '; inside {} and [] put "${NAME}" in quotes'
    return NotYAML(line, why)


def dump(tree: Any) -> str:
    """Return data as YAML that reads back the same: sections as blocks, short lists in a line."""
    return yaml.dump(
        _escaped(tree),
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=None,
        width=110,
        allow_unicode=True,
    )


def _escaped(value: Any) -> Any:
    """Return data in which every `${` is escaped, so that it is not read as a variable."""
    if isinstance(value, dict):
        return {name: _escaped(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_escaped(child) for child in value]
    if isinstance(value, str):
        return value.replace("${", "$${")
    return value
