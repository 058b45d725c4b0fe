"""The files that networks start from (`pretrained`): their hashes, and whether a node has them.

The driver records the hashes before anything starts; each node checks its own copies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from attnfd_ray.config.overrides import with_values
from attnfd_ray.config.schema import ExperimentSettings, ModelSettings
from attnfd_ray.distill.method import method_class
from attnfd_ray.errors import AttnFDError
from attnfd_ray.models import pretrained

# searched settings that decide which file the student starts from, if any
_STUDENT_PATHS = (
    "student",
    "student.arch",
    "student.backbone",
    "student.width",
    "student.pretrained",
)


def pinned(settings: ExperimentSettings) -> ExperimentSettings:
    """Return the settings with the hash of each file that their networks start from.

    Raises as `models.pretrained.load_first_weights` does if a file cannot be read or downloaded.
    """
    changed: dict[str, ModelSettings] = {"student": pretrained.pinned(settings.student)}
    if settings.teacher is not None and trains_teacher(settings):
        changed["teacher"] = pretrained.pinned(settings.teacher)
    return settings.model_copy(update=changed)


def unpinned(settings: ExperimentSettings) -> ExperimentSettings:
    """Return the settings without the hashes of files."""
    values: dict[str, None] = {}
    for name in ("student", "teacher"):
        if getattr(settings, name):
            values[f"{name}.pretrained_sha256"] = None
    return with_values(settings, values)


def trains_teacher(settings: ExperimentSettings) -> bool:
    """Return whether a teacher is trained for these settings, or for others that they search."""
    if settings.teacher is None or settings.teacher.train is None:
        return False
    return method_class(settings).needs_teacher or searches_method(settings)


def searches_method(settings: ExperimentSettings) -> bool:
    """Return whether trials of a search may have another method than the file."""
    return not settings.search.keys().isdisjoint({"method", "method.name"})


def first_weights(settings: ExperimentSettings) -> list[tuple[str, ModelSettings]]:
    """Return (setting, network with hash) for each file from which a network may start.

    Networks that the search may draw are included, so that a missing file is found before the first
    trial. Raises as `pinned` does.
    """
    found: dict[tuple[str, ...], tuple[str, ModelSettings]] = {}
    for each in (settings, *_searched(settings)):
        base = pinned(each)
        for name, network in (("student", base.student), ("teacher", base.teacher)):
            if network is not None and network.pretrained_sha256:
                file = (name, network.pretrained, network.pretrained_sha256)
                found.setdefault(file, (f"{name}.pretrained", network))
    return list(found.values())


def local_problems(weights: Sequence[tuple[str, ModelSettings]]) -> Iterator[str]:
    """Yield a line for each file that is missing on this machine, or has other content here.

    A file that can be downloaded is not missing.
    """
    for setting, network in weights:
        try:
            pretrained.check_within_reach(network)
        except AttnFDError as error:
            yield f"{setting}: {error}"


def _searched(settings: ExperimentSettings) -> Iterator[ExperimentSettings]:
    """Yield the settings with each searched combination of what decides on the student's file."""
    paths = [path for path in _STUDENT_PATHS if path in settings.search]
    if not paths:
        return
    for values in itertools.product(*(settings.search[path].examples() for path in paths)):
        try:
            yield with_values(settings, dict(zip(paths, values, strict=True)))
        except ValueError:  # of pydantic: not a valid combination, and no trial has it
            continue
