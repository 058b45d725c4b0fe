"""A YAML file as data that remembers its lines; `${ENV}` and `--set` applied. No settings are known
here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from attnfd_ray.config import yaml_io
from attnfd_ray.config.overrides import set_dotted
from attnfd_ray.config.yaml_nodes import Key, NodeReader, Place, Source
from attnfd_ray.errors import ConfigError

_MAX_BYTES = 200_000  # far more than any settings, and read in a second or two


def read(
    path: Path,
    *,
    sets: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    needs: str = "sections such as data:, student: and method:",
) -> Source:
    """Read a YAML mapping. Raises ConfigError when there is none to read; smaller problems are
    gathered.
    """
    text = _text(path)
    try:
        root = yaml_io.compose(text)
    except yaml_io.NotYAML as error:
        raise ConfigError(f"{path}:{error.line}: not YAML: {error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}:1: needs {needs}, and holds none")
    source = Source(places={(): Place(0, 1, str(path))})
    reader = NodeReader(source, environ, lambda node: Place(0, node.start_mark.line + 1, str(path)))
    source.tree = reader.mapping(root, ())
    for number, assignment in enumerate(sets, start=1):
        _assign(source, Place(number, 0, f"--set {assignment}"), assignment, environ)
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


def _assign(source: Source, place: Place, assignment: str, environ: Mapping[str, str]) -> None:
    """Apply one `--set a.b=c`, whose value is YAML."""
    path, equals, text = assignment.partition("=")
    if not equals or not all(path.split(".")):
        source.refused.append(f"{place}: needs a path and a value, as in --set train.epochs=3")
        return
    section, _, rest = path.partition(".")
    key: Key = (section, rest) if section == "search" and rest else tuple(path.split("."))
    try:
        node = yaml_io.compose(text)
        set_dotted(
            source.tree, path, None
        )  # before what it stands for is read, in case there is no such place
    except (yaml_io.NotYAML, TypeError) as error:
        source.refused.append(f"{place}: {error}")
        return
    source.forget(key)
    for length in range(1, len(key)):
        source.places.setdefault(key[:length], place)
    source.places[key] = place
    if node is not None:
        set_dotted(source.tree, path, NodeReader(source, environ, lambda _: place).value(node, key))
