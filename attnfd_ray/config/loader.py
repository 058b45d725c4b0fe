"""Reads and checks a settings file; each mistake is one line with its file and line number."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attnfd_ray.config import preset, yaml_io, yaml_source
from attnfd_ray.config.messages import dotted, errors_in, message
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.search_keys import search_problems
from attnfd_ray.config.yaml_nodes import Key, Source
from attnfd_ray.errors import ConfigError


def load_experiment(
    path: Path, *, sets: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> ExperimentSettings:
    """Read an experiment; its paths become absolute.

    `sets` are assignments such as `train.epochs=3`, which override the file; `environ` holds the
    values of `${VARIABLES}`. Raises ConfigError with every mistake, one line each.
    """
    source = yaml_source.read(path, sets=sets, environ=environ)
    preset.fill_in(source)
    problems = _problems(source)
    if problems or source.refused:
        keys = sorted(problems, key=source.location)
        lines = [f"{source.location(key)}: {dotted(key)}: {problems[key]}" for key in keys]
        raise ConfigError(lines + source.refused)
    return _absolute(ExperimentSettings.model_validate(source.tree))


def dump_yaml(settings: ExperimentSettings) -> str:
    """Return the settings as YAML, which `load_experiment` reads back to the same settings."""
    return yaml_io.dump(settings.model_dump(mode="json"))


def _problems(source: Source) -> dict[Key, str]:
    """Return the message of every mistake, by key."""
    problems = dict(source.problems)
    for error in errors_in(source.tree):
        if error["type"] == "missing" and (preset.KEY,) in source.problems:
            continue  # the preset, which cannot be used, may set it
        # a value that could not be read has its own line already
        if not any(error["loc"][: len(known)] == known for known in source.problems):
            problems.setdefault(error["loc"], message(error, source.tree))
    return problems | dict(search_problems(source.tree, problems))


def _absolute(settings: ExperimentSettings) -> ExperimentSettings:
    """Make every path absolute: workers run in directories of their own."""
    tree = settings.model_dump(mode="json")
    tree["store"] = _full(settings.store)
    tree["data"]["root"] = _full(settings.data.root)
    if settings.teacher and settings.teacher.checkpoint:
        tree["teacher"]["checkpoint"] = _full(settings.teacher.checkpoint)
    for network in filter(None, (tree["student"], tree["teacher"])):
        network["pretrained"] = _full_weights(network["pretrained"])
    for path, space in tree["search"].items():
        if path == "student.pretrained":
            space["choice"] = [_full_weights(value) for value in space["choice"]]
        elif path == "student":
            for network in space["choice"]:
                if "pretrained" in network:
                    network["pretrained"] = _full_weights(network["pretrained"])
    return ExperimentSettings.model_validate(tree)


def _full_weights(text: str) -> str:
    if text in ("none", "imagenet"):
        return text
    return _full(text)


def _full(text: str) -> str:
    if "://" in text:
        return text  # not a path; the code that opens it reports a scheme it cannot open
    path = Path(text)
    with suppress(RuntimeError):  # `~name` of a user that does not exist
        path = path.expanduser()
    return str(path.absolute())
