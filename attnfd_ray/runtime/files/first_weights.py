"""Which files a run's networks start from, settled by the driver before anything starts and looked
at on every node.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from attnfd_ray.config.overrides import with_values
from attnfd_ray.config.schema import ExperimentSettings, ModelSettings
from attnfd_ray.distill.method import method_class
from attnfd_ray.errors import AttnFDError
from attnfd_ray.models import pretrained

# what a search may vary of a student that changes the file, or whether there is one
_PATHS = ("student", "student.arch", "student.backbone", "student.width", "student.pretrained")


def pinned(settings: ExperimentSettings) -> ExperimentSettings:
    """Return the settings with the hash of every file of first weights that they, as they stand,
    start from.

    Raises as `models.pretrained.load_first_weights` does for files that cannot be had.
    """
    changed: dict[str, ModelSettings] = {"student": pretrained.pinned(settings.student)}
    if settings.teacher is not None and trains_teacher(settings):
        changed["teacher"] = pretrained.pinned(settings.teacher)
    return settings.model_copy(update=changed)


def unpinned(settings: ExperimentSettings) -> ExperimentSettings:
    """Return the settings without the hashes of files."""
    return with_values(
        settings,
        {
            f"{name}.pretrained_sha256": None
            for name in ("student", "teacher")
            if getattr(settings, name)
        },
    )


def trains_teacher(settings: ExperimentSettings) -> bool:
    """Return whether a teacher is trained for these settings, or for others that they search."""
    if settings.teacher is None or settings.teacher.train is None:
        return False
    return method_class(settings).needs_teacher or not settings.search.keys().isdisjoint(
        {"method", "method.name"}
    )


def first_weights(settings: ExperimentSettings) -> list[tuple[str, ModelSettings]]:
    """Return (setting, network) for each file that networks of an experiment start from, with its
    hash.

    Those that it searches are included. Raises as `pinned` does, so that no trial finds out later.
    """
    found: dict[tuple[str, ...], tuple[str, ModelSettings]] = {}
    for each in (settings, *_searched(settings)):
        base = pinned(each)
        networks = {"student": base.student} | ({"teacher": base.teacher} if base.teacher else {})
        for name, network in networks.items():
            if network.pretrained_sha256:
                file = (name, network.pretrained, network.pretrained_sha256)
                found.setdefault(file, (f"{name}.pretrained", network))
    return list(found.values())


def problems_here(weights: Sequence[tuple[str, ModelSettings]]) -> Iterator[str]:
    """Yield a line for each file that this machine has not, and cannot download, or has with other
    content.
    """
    for setting, network in weights:
        try:
            pretrained.check_within_reach(network)
        except AttnFDError as error:
            yield f"{setting}: {error}"


def _searched(settings: ExperimentSettings) -> Iterator[ExperimentSettings]:
    """Yield the settings with every combination that is searched of what decides on the student's
    file.
    """
    paths = [path for path in _PATHS if path in settings.search]
    for values in (
        itertools.product(*(settings.search[path].examples() for path in paths)) if paths else ()
    ):
        try:
            yield with_values(settings, dict(zip(paths, values, strict=True)))
        except ValueError:  # pydantic's: these do not go together, and no trial has them
            continue
