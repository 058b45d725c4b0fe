"""YAML nodes -> values and their lines, with `${ENV}` put in. No settings are known here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from attnfd_ray.config.base import as_yaml
from attnfd_ray.config.yaml_io import Loader
from attnfd_ray.errors import ConfigError

Key = tuple[str | int, ...]

# `$${` stands for `${` itself; a match without a name is a malformed variable
_VARIABLE = re.compile(
    r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?"
)
_MAP = "tag:yaml.org,2002:map"
_SEQUENCE = "tag:yaml.org,2002:seq"
_MERGE = "tag:yaml.org,2002:merge"
# far above any settings; a short file can stand for any number of values by aliases (*name)
_MAX_VALUES = 10_000
_MAX_DEPTH = 50


class Location(NamedTuple):
    """The source and the line of a value; sorts by reading order, the file before each `--set`."""

    source: int
    line: int
    name: str

    def __str__(self) -> str:
        if self.line:
            return f"{self.name}:{self.line}"
        return self.name


@dataclass
class Source:
    """The data of a file, the location of each value, and the problems found while reading.

    `refused` are the messages of `--set` assignments that could not be applied.
    """

    locations: dict[Key, Location]
    tree: dict[str, Any] = field(default_factory=dict)
    problems: dict[Key, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def location(self, key: Key) -> Location:
        """Return the location of a value, or of the nearest section around it."""
        while key not in self.locations:
            key = key[:-1]
        return self.locations[key]

    def forget(self, key: Key) -> None:
        """Drop the locations and problems of a value and of everything inside it."""
        for known in list(self.locations):
            if known[: len(key)] == key:
                self.locations.pop(known)
                self.problems.pop(known, None)


class NodeReader:
    """Turns nodes into values; notes locations, doubled keys and unset variables in a `Source`."""

    def __init__(
        self, source: Source, environ: Mapping[str, str], locate: Callable[[yaml.Node], Location]
    ) -> None:
        self._source = source
        self._environ = environ
        self._locate = locate
        self._loader = Loader("")
        self._num_values = 0

    def value(self, node: yaml.Node, key: Key) -> Any:
        """Return the value of a node; None, and a recorded problem, where it cannot be read."""
        self._count(node, key)
        self._source.locations.setdefault(key, self._locate(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        if node.tag not in (_MAP, _SEQUENCE):
            self._source.problems[key] = f"the tag {node.tag} is not supported; leave it out"
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key)
        return [self.value(child, (*key, index)) for index, child in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        """Return the values of a mapping by name."""
        values: dict[str, Any] = {}
        for name, (name_node, child) in self._pairs(node, key).items():
            # users look for the line of the key; a value may start a line below it
            self._source.locations.setdefault((*key, name), self._locate(name_node))
            values[name] = self.value(child, (*key, name))
        return values

    def _pairs(self, node: yaml.MappingNode, key: Key) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return (name node, value node) by name; the mapping's own keys win over merged ones."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for name_node, child in node.value:
            self._count(name_node, key)
            if name_node.tag == _MERGE:
                # of several merged mappings the first wins
                merged = self._merged(name_node, child, key) | merged
            elif not isinstance(name_node, yaml.ScalarNode):
                self._problem(name_node, (*key, "?"), "a key is a word, not a list or a section")
            elif name_node.value in own:
                self._problem(name_node, (*key, name_node.value), "is given twice; keep one")
            else:
                own[name_node.value] = (name_node, child)
        return merged | own

    def _merged(
        self, name_node: yaml.Node, child: yaml.Node, key: Key
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return the pairs that `<<: *name` or `<<: [*name, *other]` merges in."""
        bases = [child]
        if isinstance(child, yaml.SequenceNode):
            bases = child.value
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for base in bases:
            if isinstance(base, yaml.MappingNode):
                merged = self._pairs(base, (*key, "<<")) | merged
            else:
                self._problem(
                    name_node, (*key, "<<"), "needs a section to merge in, as in <<: *name"
                )
        return merged

    def _problem(self, node: yaml.Node, key: Key, text: str) -> None:
        self._source.locations[key] = self._locate(node)
        self._source.problems[key] = text

    def _scalar(self, node: yaml.ScalarNode, key: Key) -> Any:
        text = self._substituted(node.value, key)
        tag = node.tag
        if text != node.value and node.style is None:
            # without quotes a variable is read as if its value were in the file
            tag = self._loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        try:
            return self._loader.construct_object(yaml.ScalarNode(tag, text))
        except (yaml.YAMLError, ValueError, LookupError, AttributeError):
            kind = tag.rpartition(":")[2]
            self._source.problems[key] = f"{as_yaml(text)} cannot be read as {kind}"
            return None

    def _substituted(self, text: str, key: Key) -> str:
        """Return the text with the values of its variables; problems are recorded at `key`."""

        def value_of(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            name = match["name"]
            if name is None:
                self._source.problems[key] = (
                    f"a variable is written ${{NAME}} or ${{NAME:-default}}, got {as_yaml(text)}"
                )
                return match[0]
            value = self._environ.get(name) or match["default"]
            if value is None:
                self._source.problems[key] = (
                    f"the variable {name} is not set; export it, or write ${{{name}:-default}}"
                )
                return match[0]
            return value

        return _VARIABLE.sub(value_of, text)

    def _count(self, node: yaml.Node, key: Key) -> None:
        self._num_values += 1
        if self._num_values > _MAX_VALUES or len(key) > _MAX_DEPTH:
            raise ConfigError(
                f"{self._locate(node)}: more than {_MAX_VALUES} values or {_MAX_DEPTH} levels; "
                "does an alias (*name) refer to itself?"
            )
