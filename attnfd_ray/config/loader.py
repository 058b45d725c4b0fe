"""A settings file read, checked and made absolute; every mistake in it is one line with its file and line number."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from attnfd_ray import registry
from attnfd_ray.config import source as yaml_source
from attnfd_ray.config.overrides import set_dotted
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.source import Key, Source
from attnfd_ray.config.spaces import Space, parse_space
from attnfd_ray.errors import ConfigError

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
    "train.epochs": "trials of unlike budgets cannot be compared",
}


def load_experiment(
    path: Path, *, sets: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> ExperimentSettings:
    """Read an experiment. Raises ConfigError with every problem found, one line each."""
    source = yaml_source.read(path, sets=sets, environ=environ)
    problems = dict(source.problems)
    settings: ExperimentSettings | None = None
    try:
        settings = ExperimentSettings.model_validate(source.tree)
    except ValidationError as error:
        _gather(problems, error, source)
    _check_search(problems, source)
    if problems or settings is None:
        keys = sorted(problems, key=lambda key: _order(source.place(key)))
        raise ConfigError([f"{source.place(key)}: {_dotted(key)}: {problems[key]}" for key in keys])
    return _absolute(settings)


def dump_yaml(settings: ExperimentSettings) -> str:
    """Return the settings as the YAML of a file that `load_experiment` reads back to the same settings."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110)


def _gather(problems: dict[Key, str], error: ValidationError, source: Source) -> None:
    for details in error.errors(include_url=False):
        key = details["loc"]
        # a value that could not be read has its own line already
        if not any(key[: len(known)] == known for known in source.problems):
            problems.setdefault(key, _message(details, source))


def _message(details: ErrorDetails, source: Source) -> str:
    """Say in one line what came and what is needed."""
    came, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            name = str(details["loc"][-1])
            known = _keys_beside(details["loc"], source)
            return f"unknown key '{name}'{registry.suggestion(name, known)}"
        case "literal_error":
            return f"needs {context['expected']}, got {came!r}"
        case "value_error" | "rule":
            return details["msg"].removeprefix("Value error, ")
        case "int_type" | "int_parsing" | "int_from_float":
            return f"needs a whole number, got {came!r}"
        case "float_type" | "float_parsing" | "finite_number":
            return f"needs a number, got {came!r}"
        case "bool_type" | "bool_parsing":
            return f"needs true or false, got {came!r}"
        case "string_type":
            return f"needs text, got {came!r}"
        case "string_pattern_mismatch":
            return f"needs letters, digits, '.', '_' or '-', at most 100, got {came!r}"
        case "greater_than_equal":
            return f"needs at least {context['ge']:g}, got {came!r}"
        case "greater_than":
            return f"needs more than {context['gt']:g}, got {came!r}"
        case "less_than_equal":
            return f"needs at most {context['le']:g}, got {came!r}"
        case "less_than":
            return f"needs less than {context['lt']:g}, got {came!r}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"needs a section of settings, got {came!r}"
        case _:
            message = details["msg"]
            return f"{message[0].lower()}{message[1:]}, got {came!r}"


def _keys_beside(key: Key, source: Source) -> list[str]:
    """Return the keys that the section around `key` knows."""
    record: Any = ExperimentSettings
    for part in key[:-1]:
        if part == "method" and record is ExperimentSettings:
            record = registry.load("method", source.tree["method"]["name"]).Settings
        elif part == "search" and record is ExperimentSettings:
            return ["choice", "float", "int", "subset", "log", "step", "min", "max"]
        else:
            record = _record_in(record.model_fields[str(part)].annotation)
    return list(record.model_fields)


def _record_in(annotation: Any) -> Any:
    """Return the record inside `Record`, `Record | None` or `Annotated[...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(record for arg in get_args(annotation) if (record := _record_in(arg)))


def _check_search(problems: dict[Key, str], source: Source) -> None:
    """Check that each key of `search:` names a setting, and that the setting would take each of its values."""
    search = source.tree.get("search")
    if not isinstance(search, dict):
        return
    plain = {key: value for key, value in source.tree.items() if key != "search"}
    known = _known_errors(plain)
    for path, space in search.items():
        key: Key = ("search", path)
        if any(problem[:2] == key for problem in problems):
            continue
        fixed = next((name for name in _FIXED if path == name or path.startswith(f"{name}.")), None)
        if fixed:
            problems[key] = f"'{path}' cannot be searched: {_FIXED[fixed]}"
            continue
        for value in _examples(space):
            errors = _errors_with(plain, path, value)
            if errors is None:
                problems[key] = f"no setting '{path}': '{path.partition('.')[0]}' is not a section"
                break
            new = [error for error in errors if error["loc"] not in known]
            if new:
                loc = tuple(path.split("."))
                prefix = "" if new[0]["loc"][: len(loc)] != loc or new[0]["type"] == "extra_forbidden" else "a value: "
                problems[key] = f"{prefix}{_message(new[0], source)}"
                break


def _examples(space: Any) -> list[Any]:
    parsed: Space = parse_space(space)
    return parsed.examples()


def _known_errors(tree: dict[str, Any]) -> set[Key]:
    try:
        ExperimentSettings.model_validate(tree)
    except ValidationError as error:
        return {details["loc"] for details in error.errors(include_url=False)}
    return set()


def _errors_with(tree: dict[str, Any], path: str, value: Any) -> list[ErrorDetails] | None:
    """Return what the settings have against `path = value`; None where the path leads through a plain value."""
    changed = copy.deepcopy(tree)
    try:
        set_dotted(changed, path, value)
        ExperimentSettings.model_validate(changed)
    except TypeError:
        return None
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _absolute(settings: ExperimentSettings) -> ExperimentSettings:
    """Make every path absolute, since workers run in directories of their own."""

    def full(path: str) -> str:
        return str(Path(path).expanduser().absolute())

    tree = settings.model_dump(mode="json")
    tree["store"] = full(settings.store)
    tree["data"]["root"] = full(settings.data.root)
    if settings.teacher and settings.teacher.checkpoint:
        tree["teacher"]["checkpoint"] = full(settings.teacher.checkpoint)
    return ExperimentSettings.model_validate(tree)


def _order(place: str) -> tuple[str, int]:
    name, _, line = place.rpartition(":")
    return (name, int(line)) if line.isdigit() else (place, 0)


def _dotted(key: Key) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")
