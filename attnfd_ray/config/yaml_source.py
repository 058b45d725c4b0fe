"""Reads a YAML file, with `${ENV}` and `--set` applied, into data that knows its lines.

No settings are known here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from attnfd_ray.config import yaml_io
from attnfd_ray.config.overrides import set_dotted
from attnfd_ray.config.yaml_nodes import Key, Location, NodeReader, Source
from attnfd_ray.errors import ConfigError

_MAX_BYTES = 200_000  # far above any settings file, and read in a second or two


def read(
    path: Path,
    *,
    sets: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    needs: str = "sections such as data:, student: and method:",
) -> Source:
    """Read a YAML mapping; problems with single values are recorded in the source.

    Raises ConfigError where the file cannot be read or is not a mapping; `needs` then names what
    the file should hold.
    """
    text = _text(path)
    try:
        root = yaml_io.compose(text)
    except yaml_io.NotYAML as error:
        raise ConfigError(f"{path}:{error.line}: not YAML: {error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}:1: needs {needs}, and has none")
    source = Source(locations={(): Location(0, 1, str(path))})

    def locate(node: yaml.Node) -> Location:
        return Location(0, node.start_mark.line + 1, str(path))

    reader = NodeReader(source, environ, locate)
    source.tree = reader.mapping(root, ())
    for number, assignment in enumerate(sets, start=1):
        _assign(source, Location(number, 0, f"--set {assignment}"), assignment, environ)
    return source


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path}: more than {_MAX_BYTES} bytes; is this a settings file?")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not a text file in UTF-8") from None


def _assign(
    source: Source, location: Location, assignment: str, environ: Mapping[str, str]
) -> None:
    """Apply one `--set a.b=c`, whose value is YAML."""
    path, equals, text = assignment.partition("=")
    if not equals or not all(path.split(".")):
        source.refused.append(f"{location}: needs a path and a value, as in --set train.epochs=3")
        return
    try:
        node = yaml_io.compose(text)
        set_dotted(source.tree, path, None)  # first, because the path may not exist
    except (yaml_io.NotYAML, TypeError) as error:
        source.refused.append(f"{location}: {error}")
        return
    key = _key(path)
    source.forget(key)
    for length in range(1, len(key)):
        source.locations.setdefault(key[:length], location)
    source.locations[key] = location
    if node is not None:
        value = NodeReader(source, environ, lambda _: location).value(node, key)
        set_dotted(source.tree, path, value)


def _key(path: str) -> Key:
    """Return the key of a dotted path; what follows `search.` is one key."""
    section, _, rest = path.partition(".")
    if section == "search" and rest:
        return (section, rest)
    return tuple(path.split("."))
