"""`preset: NAME` in a settings file: a recipe that fills in what the file and `--set` leave out."""

from __future__ import annotations

import copy
from typing import Any

from attnfd_ray import registry
from attnfd_ray.config.base import as_yaml
from attnfd_ray.config.yaml_nodes import Source
from attnfd_ray.errors import ConfigError

KEY = "preset"


def load(name: str) -> Any:
    """Return the preset called `name`, an `attnfd_ray.distill.presets.Preset`. Raises ConfigError
    if there is none.
    """
    found = registry.load("preset", name)
    if not hasattr(found, "fillings"):
        raise ConfigError(f"preset '{name}' is none: needs an attnfd_ray.distill.presets.Preset")
    return found


def fill_in(source: Source) -> None:
    """Take `preset:` out of what was read and put its values wherever there is none; note what is
    wrong with it.
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
    """Put `value` at `section.name`, which then stands where the preset does."""
    section, _, name = path.partition(".")
    if source.tree.get(section) is None:
        source.tree[section] = {}
    values = source.tree[section]
    if isinstance(values, dict) and name not in values:
        values[name] = copy.deepcopy(value)
        source.places.setdefault((section,), source.location((KEY,)))
        source.places.setdefault((section, name), source.location((KEY,)))
