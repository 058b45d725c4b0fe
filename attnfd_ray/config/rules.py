"""What must hold between settings; each rule names the setting to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attnfd_ray import registry
from attnfd_ray.config.metrics import CHANGED_BY

if TYPE_CHECKING:
    from attnfd_ray.config.schema import (
        DataSettings,
        MethodSettings,
        ModelSettings,
        ScalingSettings,
        TeacherSettings,
        TrainSettings,
        TuneSettings,
    )

Finding = tuple[tuple[str, ...], str]


def broken_rules(sections: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield (key of the setting, message) for every rule that does not hold.

    `sections` are those that are valid by themselves; a rule that needs another is left out.
    """
    for rule, names in _RULES:
        if sections.keys() >= set(names):
            yield from rule(*(sections[name] for name in names))


def _batch(train: TrainSettings, scaling: ScalingSettings) -> Iterator[Finding]:
    yield from _shared(("train", "batch_size"), train.batch_size, train, scaling)


def _teacher_batch(
    teacher: TeacherSettings | None, train: TrainSettings, scaling: ScalingSettings
) -> Iterator[Finding]:
    if teacher and teacher.train and teacher.train.batch_size:
        yield from _shared(
            ("teacher", "train", "batch_size"), teacher.train.batch_size, train, scaling
        )


def _shared(
    key: tuple[str, ...], size: int, train: TrainSettings, scaling: ScalingSettings
) -> Iterator[Finding]:
    parts = scaling.workers * train.accumulate
    if size % parts:
        needed = f"{scaling.workers} workers x accumulate {train.accumulate} = {parts}"
        yield key, f"{size} cannot be shared evenly: needs a multiple of {needed}"
    elif size < 2 * parts:
        # BatchNorm of the pooled branch sees one value a channel and image
        yield key, f"{size} leaves one image at a time to {parts} parts: needs 2 each"


def _evaluation(data: DataSettings) -> Iterator[Finding]:
    if data.evaluation == "resized" and data.input_scale != 1:
        yield (
            ("data", "input_scale"),
            (
                "needs 1 where evaluation: resized says how large images are, got "
                f"{data.input_scale:g}"
            ),
        )
    if data.eval_stride is not None:
        if data.evaluation != "sliding":
            yield (
                ("data", "eval_stride"),
                f"needs evaluation: sliding, got evaluation: {data.evaluation}",
            )
        elif any(step > side for step, side in zip(data.eval_stride, data.crop, strict=True)):
            yield (
                ("data", "eval_stride"),
                (
                    f"needs at most the crop {list(data.crop)}, or pixels would be skipped, got "
                    f"{list(data.eval_stride)}"
                ),
            )
    if data.test_split is not None and data.test_split in (data.train_split, data.val_split):
        yield (
            ("data", "test_split"),
            f"needs a split that nothing was learned or chosen on, got '{data.test_split}'",
        )


def _weights(name: str, network: ModelSettings | None) -> Iterator[Finding]:
    if network and network.pretrained == "imagenet" and network.width != 1:
        yield (
            (name, "pretrained"),
            f"imagenet weights exist for width 1, not {network.width:g}; use 'none'",
        )
    if network and network.pretrained == "none" and network.pretrained_sha256:
        yield (
            (name, "pretrained_sha256"),
            "is of no file where pretrained is none; remove it, or name the file",
        )


def _teacher_source(teacher: TeacherSettings | None) -> Iterator[Finding]:
    if teacher and (teacher.checkpoint is None) == (teacher.train is None):
        yield ("teacher",), "needs either checkpoint: FILE or train: {epochs: N}, one of them"


def _teacher_weights(teacher: TeacherSettings | None) -> Iterator[Finding]:
    if teacher and teacher.checkpoint and teacher.pretrained != "none":
        yield (
            ("teacher", "pretrained"),
            "would be overwritten by teacher.checkpoint; remove pretrained",
        )


def _teacher_needed(method: MethodSettings, teacher: TeacherSettings | None) -> Iterator[Finding]:
    if teacher is None and registry.load("method", method.name).needs_teacher:
        yield ("teacher",), f"is missing: method '{method.name}' learns from one"


def _layers(name: str, method: MethodSettings, network: ModelSettings | None) -> Iterator[Finding]:
    taps = getattr(registry.load("method", method.name), "taps", None)
    layers: tuple[str, ...] = taps(method) if taps else ()
    key = ("method", "layers") if hasattr(method, "layers") else ("method",)
    # someone's own network may say only once it is built, as any does of its modules' paths
    # (`encoder.layer2`)
    known = (
        list(getattr(registry.load("arch", network.arch), "tap_names", layers))
        if network
        else list(layers)
    )
    for layer in layers:
        if layer not in known and not set(layer) & {".", "["}:
            yield key, f"the {name} has no layer '{layer}'{registry.suggestion(layer, known)}"
            return


def _metrics(tune: TuneSettings, search: Mapping[str, Any]) -> Iterator[Finding]:
    if len(tune.metrics) == 1:
        return
    for metric in tune.metrics:
        paths = CHANGED_BY.get(metric)
        if paths and search.keys().isdisjoint(paths):
            yield (
                ("tune", "metric"),
                (
                    f"{metric} is the same for every trial: needs one of {', '.join(paths[1:])} in "
                    "search:"
                ),
            )
    if tune.early_stopping != "none":
        yield (
            ("tune", "early_stopping"),
            (
                f"'{tune.early_stopping}' compares trials by one value; needs none, or leave it out, "
                "with several metrics"
            ),
        )
    if why := {"cmaes": "follows one value", "gp": "takes minutes a draw with several metrics"}.get(
        tune.sampler
    ):
        yield ("tune", "sampler"), f"'{tune.sampler}' {why}; needs tpe, nsga2, random or grid"


_RULES: list[tuple[Callable[..., Iterator[Finding]], tuple[str, ...]]] = [
    (_evaluation, ("data",)),
    (_batch, ("train", "scaling")),
    (_teacher_batch, ("teacher", "train", "scaling")),
    (partial(_weights, "student"), ("student",)),
    (partial(_weights, "teacher"), ("teacher",)),
    (_teacher_source, ("teacher",)),
    (_teacher_weights, ("teacher",)),
    (_teacher_needed, ("method", "teacher")),
    (partial(_layers, "student"), ("method", "student")),
    (partial(_layers, "teacher"), ("method", "teacher")),
    (_metrics, ("tune", "search")),
]
