"""Checks of `search:`: each key names a setting that can vary and accepts each of its values."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from attnfd_ray.config.base import as_yaml
from attnfd_ray.config.fields import NotSearchable, walk
from attnfd_ray.config.messages import dotted, errors_in, message
from attnfd_ray.config.overrides import set_dotted
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.spaces import parse_space
from attnfd_ray.config.yaml_nodes import Key

# settings and sections that a search cannot vary, and the reason
NOT_SEARCHABLE = {
    setting.path: mark.reason
    for setting in walk(ExperimentSettings)
    for mark in setting.field.metadata
    if isinstance(mark, NotSearchable)
}


def search_problems(tree: Mapping[str, Any], broken: Collection[Key]) -> Iterator[tuple[Key, str]]:
    """Yield (key, message) for each entry of `search:` that cannot be searched.

    Entries with a key in `broken` are left out: they have a message already.
    """
    search = tree.get("search")
    if not isinstance(search, dict):
        return
    settings = {name: value for name, value in tree.items() if name != "search"}
    errors = {error["loc"] for error in errors_in(settings)}
    for path, space in search.items():
        if any(key[:2] == ("search", path) for key in broken):
            continue
        problem = (
            _not_searchable(path)
            or _changes_protocol(path, settings)
            or _searched_twice(path, search)
            or _refused_value(path, space, settings, errors)
        )
        if problem:
            yield ("search", path), problem


def _not_searchable(path: str) -> str | None:
    for fixed, reason in NOT_SEARCHABLE.items():
        if _is_inside(path, fixed):
            return f"'{path}' cannot be searched: {reason}"
        if _is_inside(fixed, path):
            return f"'{path}' cannot be searched as a whole: it holds {fixed}, and {reason}"
    return None


def _changes_protocol(path: str, settings: Mapping[str, Any]) -> str | None:
    """Return why the crop of training cannot vary where images are scored by it too."""
    data = settings.get("data")
    if not isinstance(data, dict) or not _is_inside(path, "data.crop"):
        return None
    evaluation = data.get("evaluation")
    if evaluation not in ("resized", "sliding"):
        return None
    return (
        f"'{path}' cannot be searched where evaluation: {evaluation} scores by the crop: scores of "
        "different protocols cannot be compared; set evaluation: native"
    )


def _searched_twice(path: str, search: Collection[str]) -> str | None:
    for other in search:
        if other != path and _is_inside(path, other):
            return f"lies inside '{other}', which is searched too; keep one of them"
    return None


def _refused_value(
    path: str, space: Any, settings: Mapping[str, Any], errors: Collection[Key]
) -> str | None:
    """Return why the settings refuse one of the values; `errors` are those without any value."""
    key: Key = tuple(path.split("."))
    for value in parse_space(space).examples():
        changed = copy.deepcopy(dict(settings))
        try:
            set_dotted(changed, path, copy.deepcopy(value))
        except TypeError as error:
            return f"no setting '{path}': {error}"
        for details in errors_in(changed):
            if details["loc"] not in errors or details["loc"][: len(key)] == key:
                return _refusal(details, key, value, changed)
    return None


def _refusal(details: ErrorDetails, key: Key, value: Any, tree: Mapping[str, Any]) -> str:
    loc = details["loc"]
    text = message(details, tree)
    if details["type"] == "extra_forbidden" and loc == key[: len(loc)]:
        return f"no setting '{dotted(key)}': {text}"
    if loc[: len(key)] == key:
        return f"{as_yaml(value)} is refused: {text}"
    if loc == key[: len(loc)]:
        return f"no setting '{dotted(key)}': '{dotted(loc)}' is not a section"
    return f"{as_yaml(value)} is refused: {dotted(loc)}: {text}"


def _is_inside(path: str, section: str) -> bool:
    return path == section or path.startswith(f"{section}.")
