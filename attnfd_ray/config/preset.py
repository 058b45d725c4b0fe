"""`preset: NAME` in a settings file: a recipe for the settings that the file and `--set` omit."""

from __future__ import annotations

import copy
from typing import Any

from attnfd_ray import registry
from attnfd_ray.config.base import as_yaml
from attnfd_ray.config.yaml_nodes import Source
from attnfd_ray.errors import ConfigError

KEY = "preset"


def load(name: str) -> Any:
    """Return the preset called `name`, an `attnfd_ray.distill.presets.Preset`.

    Raises ConfigError where there is no such preset.
    """
    found = registry.load("preset", name)
    if not hasattr(found, "fillings"):
        raise ConfigError(
            f"preset '{name}' is not a preset: needs an attnfd_ray.distill.presets.Preset"
        )
    return found


def fill_in(source: Source) -> None:
    """Replace `preset:` in a source by the preset's values, where the source has none.

    A problem with the preset is noted in the source.
    """
    if KEY not in source.tree:
        return
    name = source.tree.pop(KEY)
    if (KEY,) in source.problems:
        return
    if not isinstance(name, str):
        source.problems[KEY,] = f"needs the name of a preset, got {as_yaml(name)}"
        return
    try:
        fillings = load(name).fillings()
    except ConfigError as error:
        source.problems[KEY,] = str(error)
        return
    for path, value in fillings.items():
        _fill(source, path, value)


def _fill(source: Source, path: str, value: object) -> None:
    """Put `value` at `section.name` unless there is one; its line is that of the preset."""
    section, _, name = path.partition(".")
    if source.tree.get(section) is None:
        source.tree[section] = {}
    values = source.tree[section]
    if isinstance(values, dict) and name not in values:
        values[name] = copy.deepcopy(value)
        source.locations.setdefault((section,), source.location((KEY,)))
        source.locations.setdefault((section, name), source.location((KEY,)))
