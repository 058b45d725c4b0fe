"""The YAML of settings files: YAML 1.1 as PyYAML has it, but `1e-3` is a number and a date is
text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_FLOAT, _TIMESTAMP = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")


class _Dialect(yaml.resolver.Resolver):
    """What a word without quotes means."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.resolver.Resolver.yaml_implicit_resolvers.items()
    }


_Dialect.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+.0123456789"))


class Loader(_Dialect, yaml.SafeLoader):
    """Reads it."""


class _Dumper(_Dialect, yaml.SafeDumper):
    """Writes it: quotes what would be read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # PyYAML would write a next-line character as it is, and read a blank
        return self.represent_scalar(
            "tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"'
        )


_Dumper.add_representer(str, _Dumper.represent_str)


class NotYAML(Exception):
    """Text that is no YAML, from this line on."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def compose(text: str) -> yaml.Node | None:
    """Return the nodes of a text, None where it holds nothing. Raises NotYAML."""
    try:
        return yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        why = ": ".join(part for part in (error.context, error.problem) if part)
        quotes = (
            '; inside {} and [] put "${NAME}" in quotes'
            if "${" in "".join(text.splitlines()[line - 1 : line])
            else ""
        )
        raise NotYAML(line, why + quotes) from None
    except yaml.reader.ReaderError as error:
        raise NotYAML(
            text.count("\n", 0, error.position) + 1, f"{error.reason}: {chr(error.character)!r}"
        ) from None
    except RecursionError:
        raise NotYAML(1, "nested too deeply") from None


def dump(tree: Any) -> str:
    """Return data as YAML that is read back the same: sections as blocks, short lists in one
    line.
    """
    return yaml.dump(
        _escaped(tree),
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=None,
        width=110,
        allow_unicode=True,
    )


def _escaped(value: Any) -> Any:
    """Return data in which no text is taken for a variable."""
    if isinstance(value, dict):
        return {name: _escaped(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_escaped(child) for child in value]
    return value.replace("${", "$${") if isinstance(value, str) else value
