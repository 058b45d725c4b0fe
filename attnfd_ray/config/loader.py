"""A settings file read, checked and made absolute; every mistake in it is one line with its file
and line number.
"""

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
    """Read an experiment. Raises ConfigError with every problem found, one line each."""
    read = yaml_source.read(path, sets=sets, environ=environ)
    preset.fill_in(read)
    problems = _problems(read)
    if problems or read.refused:
        keys = sorted(problems, key=read.location)
        raise ConfigError(
            [f"{read.location(key)}: {dotted(key)}: {problems[key]}" for key in keys] + read.refused
        )
    return _absolute(ExperimentSettings.model_validate(read.tree))


def dump_yaml(settings: ExperimentSettings) -> str:
    """Return the settings as the YAML of a file that `load_experiment` reads back to the same
    settings.
    """
    return yaml_io.dump(settings.model_dump(mode="json"))


def _problems(read: Source) -> dict[Key, str]:
    """Return what is wrong, by key."""
    problems = dict(read.problems)
    for error in errors_in(read.tree):
        if error["type"] == "missing" and (preset.KEY,) in read.problems:
            continue  # it may be what the preset was to bring
        # a value that could not be read has its own line already
        if not any(error["loc"][: len(known)] == known for known in read.problems):
            problems.setdefault(error["loc"], message(error, read.tree))
    return problems | dict(search_problems(read.tree, problems))


def _absolute(settings: ExperimentSettings) -> ExperimentSettings:
    """Make every path absolute, since workers run in directories of their own."""
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
    return text if text in ("none", "imagenet") else _full(text)


def _full(text: str) -> str:
    if "://" in text:
        return text  # no path; whoever opens it says so
    path = Path(text)
    with suppress(RuntimeError):  # ~someone who is not known here
        path = path.expanduser()
    return str(path.absolute())
