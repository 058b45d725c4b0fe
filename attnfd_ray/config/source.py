"""A YAML file as data that remembers its lines; `${ENV}` and `--set` applied. No settings are known here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from attnfd_ray.config.overrides import set_dotted
from attnfd_ray.errors import ConfigError

Key = tuple[str | int, ...]
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


@dataclass
class Source:
    """The data of a file, where each value stands, and what was wrong already."""

    tree: dict[str, Any]
    places: dict[Key, str]
    problems: dict[Key, str] = field(default_factory=dict)

    def place(self, key: Key) -> str:
        """Return `file:line` of a value, or of the nearest section around it."""
        while key not in self.places:
            key = key[:-1]
        return self.places[key]


def read(path: Path, *, sets: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> Source:
    """Read a YAML mapping. Raises ConfigError when there is none to read; smaller problems are gathered."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}: needs sections such as data:, student: and method:, and holds none")
    source = Source(tree={}, places={(): str(path)})
    source.tree = _Reader(source, str(path), environ).value(root, ())
    for assignment in sets:
        _assign(source, assignment, environ)
    return source


class _Reader:
    """Turns nodes into values, noting lines, doubled keys and unset variables on the way."""

    def __init__(self, source: Source, name: str, environ: Mapping[str, str]) -> None:
        self.source, self.name, self.environ = source, name, environ
        self.scalars = yaml.SafeLoader("")

    def value(self, node: yaml.Node, key: Key) -> Any:
        if key:
            self.source.places[key] = f"{self.name}:{node.start_mark.line + 1}"
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*key, index)) for index, child in enumerate(node.value)]
        if isinstance(node.value, str) and "${" in node.value:
            return self._substitute(node.value, key)
        try:
            return self.scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self.source.problems[key] = str(getattr(error, "problem", None) or error)
            return None

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name_node, child in node.value:
            name = str(name_node.value)
            if name in values:
                self.source.places[(*key, name)] = f"{self.name}:{name_node.start_mark.line + 1}"
                self.source.problems[(*key, name)] = "stands there twice; keep one"
                continue
            values[name] = self.value(child, (*key, name))
            # the line of the key, which is where a reader looks; a value may start a line below it
            self.source.places[(*key, name)] = f"{self.name}:{name_node.start_mark.line + 1}"
        return values

    def _substitute(self, text: str, key: Key) -> str:
        def value_of(match: re.Match[str]) -> str:
            name, default = match["name"], match["default"]
            value = self.environ.get(name) or default
            if value is None:
                self.source.problems[key] = f"the variable {name} is not set; export it, or write ${{{name}:-default}}"
                return match[0]
            return value

        return _VARIABLE.sub(value_of, text)


def _assign(source: Source, assignment: str, environ: Mapping[str, str]) -> None:
    """Apply one `--set a.b=c`, whose value is YAML."""
    place = f"--set {assignment}"
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise ConfigError(f"{place}: needs a path and a value, as in --set train.epochs=3")
    section, _, rest = path.partition(".")
    key: Key = (section, rest) if section == "search" and rest else tuple(path.split("."))
    for known in [known for known in source.places if known[: len(key)] == key]:
        source.places.pop(known)
        source.problems.pop(known, None)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = None if node is None else _Reader(source, place, environ).value(node, key)
        set_dotted(source.tree, path, value)
    except (yaml.YAMLError, TypeError) as error:
        raise ConfigError(f"{place}: {getattr(error, 'problem', None) or error}") from None
    for known in [known for known in source.places if known[: len(key)] == key]:
        source.places[known] = place
    source.places.setdefault(key, place)
