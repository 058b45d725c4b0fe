"""Builds the networks of an experiment before it starts, to find errors early and count parameters.

Knows torch, no ray.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from attnfd_ray.config.metrics import CHANGED_BY, PARAMS
from attnfd_ray.config.overrides import with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.config.spaces import Space
from attnfd_ray.distill.method import build_method, method_class
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.errors import AttnFDError
from attnfd_ray.models import SegmentationModel, build_model, load_weights
from attnfd_ray.runtime.cluster.estimate import Sizes


def check_networks(
    settings: ExperimentSettings,
    num_classes: int,
    *,
    searching: bool = True,
    log: Callable[[str], None] | None = None,
) -> Sizes:
    """Build both networks and the method once; return the parameter counts.

    Raises if weights or gates do not fit. `log` gets a line for each file of first weights. If
    `searching`, the counts are those of the largest student that the search may draw.
    """
    student = build_model(settings.student, num_classes=num_classes)
    _log_first_weights("student", student, log)
    teacher = None
    if settings.teacher is not None and method_class(settings).needs_teacher:
        network = build_model(settings.teacher, num_classes=num_classes)
        if settings.teacher.checkpoint:
            load_weights(network, Path(settings.teacher.checkpoint), num_classes=num_classes)
        _log_first_weights("teacher", network, log)
        teacher = FrozenTeacher(network)
    sizes = [_sizes(settings, student, teacher)]
    if searching:
        for other in searched_students(settings):
            # the trial of a student that cannot be built fails, and reports why
            with contextlib.suppress(AttnFDError):
                student = build_model(other.student, num_classes=num_classes)
                sizes.append(_sizes(other, student, teacher))
    return Sizes(
        student=max(size.student for size in sizes), learned=max(size.learned for size in sizes)
    )


def searched_students(settings: ExperimentSettings) -> Iterator[ExperimentSettings]:
    """Yield the settings with each student that the search may draw, without first weights.

    Of a range of widths, only the widest student is yielded.
    """
    paths = [path for path in CHANGED_BY[PARAMS] if path in settings.search]
    if not paths:
        return
    for values in itertools.product(*(_largest(settings.search[path]) for path in paths)):
        changes = dict(zip(paths, values, strict=True)) | {"student.pretrained": "none"}
        try:
            yield with_values(settings, changes)
        except ValueError:  # of pydantic: not a valid combination, and no trial has it
            continue


def _largest(space: Space) -> list[Any]:
    """Return the values of a space; of numbers, only the greatest."""
    values = space.examples()
    if all(isinstance(value, int | float) for value in values):
        return [max(values)]
    return values


def _sizes(
    settings: ExperimentSettings, student: SegmentationModel, teacher: FrozenTeacher | None
) -> Sizes:
    method, _ = build_method(settings, student, teacher)
    num_student = _num_parameters(student)
    return Sizes(student=num_student, learned=num_student + _num_parameters(method))


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _log_first_weights(
    name: str, network: SegmentationModel, log: Callable[[str], None] | None
) -> None:
    if log is not None and network.first_weights is not None:
        log(f"{name}.pretrained: {network.first_weights}")
