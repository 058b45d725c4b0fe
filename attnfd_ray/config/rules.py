"""What must hold between settings; each rule names the setting to change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attnfd_ray import registry

if TYPE_CHECKING:
    from attnfd_ray.config.schema import ExperimentSettings, ModelSettings

Finding = tuple[tuple[str, ...], str]


def broken_rules(settings: ExperimentSettings) -> Iterator[Finding]:
    """Yield (key of the setting, message) for every rule that does not hold."""
    yield from _batch(settings)
    yield from _weights(settings)
    yield from _teacher(settings)
    yield from _layers(settings)
    low, high = settings.data.scale
    if low > high:
        yield ("data", "scale"), f"[{low:g}, {high:g}] is empty; put the smaller end first"


def _batch(settings: ExperimentSettings) -> Iterator[Finding]:
    size, workers, parts = settings.train.batch_size, settings.scaling.workers, settings.train.accumulate
    if size % (workers * parts):
        needed = f"{workers} workers x accumulate {parts} = {workers * parts}"
        yield ("train", "batch_size"), f"{size} cannot be shared evenly: needs a multiple of {needed}"
    elif size < 2 * workers * parts:
        # BatchNorm of the pooled branch sees one value a channel and image
        yield ("train", "batch_size"), f"{size} leaves one image at a time to {workers * parts} parts: needs 2 each"


def _weights(settings: ExperimentSettings) -> Iterator[Finding]:
    networks: list[tuple[str, ModelSettings | None]] = [("student", settings.student), ("teacher", settings.teacher)]
    for name, network in networks:
        if network and network.pretrained == "imagenet" and network.width != 1:
            yield (name, "pretrained"), f"imagenet weights exist for width 1, not {network.width:g}; use 'none'"


def _teacher(settings: ExperimentSettings) -> Iterator[Finding]:
    if settings.teacher is None:
        if registry.load("method", settings.method.name).needs_teacher:
            yield ("teacher",), f"is missing: method '{settings.method.name}' learns from one"
    elif (settings.teacher.checkpoint is None) == (settings.teacher.train is None):
        yield ("teacher",), "needs either checkpoint: FILE or train: {epochs: N}, one of them"


def _layers(settings: ExperimentSettings) -> Iterator[Finding]:
    layers: list[str] = getattr(settings.method, "layers", [])
    for name, network in (("student", settings.student), ("teacher", settings.teacher)):
        if network is None:
            continue
        known = list(registry.load("arch", network.arch).tap_names)
        for layer in layers:
            if layer not in known:
                yield ("method", "layers"), f"the {name} has no layer '{layer}'{registry.suggestion(layer, known)}"
                return
