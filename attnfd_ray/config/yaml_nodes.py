"""YAML nodes -> values that remember their lines, with `${ENV}` put in. No settings are known
here.
"""

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

# `$${` stands for `${` itself; what looks like a variable and is none has no name
_VARIABLE = re.compile(
    r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?"
)
_MAP, _SEQUENCE, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "merge"))
# More than any settings hold. An alias (*name) costs a file nothing, and can stand for any number
# of values.
_MAX_VALUES, _MAX_DEPTH = 10_000, 50


class Place(NamedTuple):
    """Where a value stands, in reading order: the file comes first, then one `--set` after the
    other.
    """

    source: int
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.name}:{self.line}" if self.line else self.name


@dataclass
class Source:
    """The data of a file, where each value stands, what was wrong already, and each `--set` that
    names no place.
    """

    places: dict[Key, Place]
    tree: dict[str, Any] = field(default_factory=dict)
    problems: dict[Key, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def location(self, key: Key) -> Place:
        """Return where a value stands, or the nearest section around it."""
        while key not in self.places:
            key = key[:-1]
        return self.places[key]

    def forget(self, key: Key) -> None:
        """Drop what is known of a value and of all below it."""
        for known in [known for known in self.places if known[: len(key)] == key]:
            self.places.pop(known)
            self.problems.pop(known, None)


class NodeReader:
    """Turns nodes into values, noting places, doubled keys and unset variables on the way."""

    def __init__(
        self, source: Source, environ: Mapping[str, str], place: Callable[[yaml.Node], Place]
    ) -> None:
        self._source, self._environ, self._place = source, environ, place
        self._loader = Loader("")
        self._num_values = 0

    def value(self, node: yaml.Node, key: Key) -> Any:
        """Return the value of a node; of one that cannot be read, None, and a problem is noted."""
        self._count(node, key)
        self._source.places.setdefault(key, self._place(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        if node.tag not in (_MAP, _SEQUENCE):
            self._source.problems[key] = f"the tag {node.tag} means nothing here; leave it out"
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key)
        return [self.value(child, (*key, index)) for index, child in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        """Return the values of a mapping by name."""
        values: dict[str, Any] = {}
        for name, (name_node, child) in self._pairs(node, key).items():
            # the line of the key, which is where one looks; a value may start a line below it
            self._source.places.setdefault((*key, name), self._place(name_node))
            values[name] = self.value(child, (*key, name))
        return values

    def _pairs(self, node: yaml.MappingNode, key: Key) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return the nodes by name; what `<<` merges in gives way to what stands in the mapping
        itself.
        """
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for name_node, child in node.value:
            self._count(name_node, key)
            if name_node.tag == _MERGE:
                for base in child.value if isinstance(child, yaml.SequenceNode) else [child]:
                    if isinstance(base, yaml.MappingNode):
                        merged = self._pairs(base, (*key, "<<")) | merged
                    else:
                        self._problem(
                            name_node, (*key, "<<"), "needs a section to merge in, as in <<: *name"
                        )
            elif not isinstance(name_node, yaml.ScalarNode):
                self._problem(name_node, (*key, "?"), "a key is a word, not a list or a section")
            elif name_node.value in own:
                self._problem(name_node, (*key, name_node.value), "stands there twice; keep one")
            else:
                own[name_node.value] = (name_node, child)
        return merged | own

    def _problem(self, node: yaml.Node, key: Key, text: str) -> None:
        self._source.places[key] = self._place(node)
        self._source.problems[key] = text

    def _scalar(self, node: yaml.ScalarNode, key: Key) -> Any:
        text, tag = self._substituted(node.value, key), node.tag
        if text != node.value and node.style is None:
            # without quotes a variable is read as if its value stood there
            tag = self._loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        try:
            return self._loader.construct_object(yaml.ScalarNode(tag, text))
        except (yaml.YAMLError, ValueError, LookupError, AttributeError):
            self._source.problems[key] = (
                f"{as_yaml(text)} cannot be read as {tag.rpartition(':')[2]}"
            )
            return None

    def _substituted(self, text: str, key: Key) -> str:
        def value_of(match: re.Match[str]) -> str:
            name, default = match["name"], match["default"]
            if match[0] == "$${":
                return "${"
            if name is None:
                self._source.problems[key] = (
                    f"a variable is written ${{NAME}} or ${{NAME:-default}}, got {as_yaml(text)}"
                )
                return match[0]
            value = self._environ.get(name) or default
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
                f"{self._place(node)}: more than {_MAX_VALUES} values or {_MAX_DEPTH} levels; "
                "does an alias (*name) stand inside what it stands for?"
            )
