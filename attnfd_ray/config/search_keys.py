"""Checks the keys of `search:`: each names a setting that may vary and that would take each of its
values.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from attnfd_ray.config.base import as_yaml
from attnfd_ray.config.messages import dotted, errors_in, message
from attnfd_ray.config.overrides import set_dotted
from attnfd_ray.config.spaces import parse_space
from attnfd_ray.config.yaml_nodes import Key

# What a search may not vary, and why.
_FIXED = {
    "experiment": "it names the whole search",
    "store": "it holds the whole search",
    "search": "it is the search",
    "tune": "it steers the search",
    "scaling": "every trial runs on the same worker groups",
    "teacher": "every trial learns from the same teacher",
    "data.name": "every trial is scored on the same data",
    "data.root": "every trial is scored on the same data",
    "data.train_split": "every trial sees the same data",
    "data.val_split": "every trial is scored on the same data",
    "data.val_limit": "every trial is scored on the same data",
    "data.test_split": "every trial is scored on the same data",
    "data.evaluation": "scores of unlike protocols cannot be compared",
    "data.eval_stride": "scores of unlike protocols cannot be compared",
    "data.eval_scales": "scores of unlike protocols cannot be compared",
    "data.eval_flip": "scores of unlike protocols cannot be compared",
    "data.input_scale": "scores of unlike protocols cannot be compared",
    "train.epochs": "trials of unlike budgets cannot be compared",
}


def search_problems(tree: Mapping[str, Any], broken: Collection[Key]) -> Iterator[tuple[Key, str]]:
    """Yield (key, message) for each entry of `search:` that cannot be searched; those that are
    `broken` have theirs.
    """
    search = tree.get("search")
    if not isinstance(search, dict):
        return
    plain = {name: value for name, value in tree.items() if name != "search"}
    data = plain.get("data")
    evaluation = data.get("evaluation") if isinstance(data, dict) else None
    known = {error["loc"] for error in errors_in(plain)}
    for path, space in search.items():
        if not any(key[:2] == ("search", path) for key in broken):
            text = _why_fixed(path) or _why_scored_by(path, evaluation)
            text = text or _why_twice(path, search) or _why_refused(plain, path, space, known)
            if text:
                yield ("search", path), text


def _why_fixed(path: str) -> str | None:
    for fixed, why in _FIXED.items():
        if _is_inside(path, fixed):
            return f"'{path}' cannot be searched: {why}"
        if _is_inside(fixed, path):
            return f"'{path}' cannot be searched as a whole: it holds {fixed}, and {why}"
    return None


def _why_scored_by(path: str, evaluation: Any) -> str | None:
    """Say why a setting of training cannot vary where images are scored by it too."""
    if not _is_inside(path, "data.crop") or evaluation not in ("resized", "sliding"):
        return None
    return (
        f"'{path}' cannot be searched where evaluation: {evaluation} scores by the crop: scores "
        "of unlike protocols "
        "cannot be compared; set evaluation: native"
    )


def _why_twice(path: str, search: Collection[str]) -> str | None:
    outer = next((other for other in search if other != path and _is_inside(path, other)), None)
    return outer and f"lies inside '{outer}', which is searched too; keep one of them"


def _why_refused(
    plain: Mapping[str, Any], path: str, space: Any, known: Collection[Key]
) -> str | None:
    """Say why the settings would not take one of the values; `known` is what was wrong without
    any.
    """
    key: Key = tuple(path.split("."))
    for value in parse_space(space).examples():
        changed = copy.deepcopy(dict(plain))
        try:
            set_dotted(changed, path, copy.deepcopy(value))
        except TypeError as error:
            return f"no setting '{path}': {error}"
        for details in errors_in(changed):
            if details["loc"] not in known or details["loc"][: len(key)] == key:
                return _refusal(details, key, value, changed)
    return None


def _refusal(details: ErrorDetails, key: Key, value: Any, tree: Mapping[str, Any]) -> str:
    loc, text = details["loc"], message(details, tree)
    if details["type"] == "extra_forbidden" and loc == key[: len(loc)]:
        return f"no setting '{dotted(key)}': {text}"
    if loc[: len(key)] == key:
        return f"{as_yaml(value)} is refused: {text}"
    if loc == key[: len(loc)]:
        return f"no setting '{dotted(key)}': '{dotted(loc)}' is not a section"
    return f"{as_yaml(value)} is refused: {dotted(loc)}: {text}"


def _is_inside(path: str, section: str) -> bool:
    return path == section or path.startswith(f"{section}.")
