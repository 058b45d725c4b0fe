"""Rules between settings. Each broken rule names the setting to change. No torch, no ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from attnfd_ray import registry
from attnfd_ray.config.data_settings import DataSettings
from attnfd_ray.config.method_settings import MethodSettings
from attnfd_ray.config.metrics import CHANGED_BY
from attnfd_ray.config.model_settings import ModelSettings, TeacherSettings
from attnfd_ray.config.samplers import MULTI_METRIC, any_of, traits_of
from attnfd_ray.config.train_settings import ScalingSettings, TrainSettings
from attnfd_ray.config.tune_settings import TuneSettings

Finding = tuple[tuple[str, ...], str]


def broken_rules(sections: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield (key of the setting, message) for every rule that does not hold.

    `sections` are those that are valid by themselves; a rule that needs another is left out.
    """
    for rule, names in _RULES:
        if sections.keys() >= set(names):
            yield from rule(*(sections[name] for name in names))


def _batch(train: TrainSettings, scaling: ScalingSettings) -> Iterator[Finding]:
    yield from _batch_parts(("train", "batch_size"), train.batch_size, train, scaling)


def _teacher_batch(
    teacher: TeacherSettings | None, train: TrainSettings, scaling: ScalingSettings
) -> Iterator[Finding]:
    if teacher and teacher.train and teacher.train.batch_size:
        key = ("teacher", "train", "batch_size")
        yield from _batch_parts(key, teacher.train.batch_size, train, scaling)


def _batch_parts(
    key: tuple[str, ...], size: int, train: TrainSettings, scaling: ScalingSettings
) -> Iterator[Finding]:
    parts = scaling.workers * train.accumulate
    if size % parts:
        needed = f"{scaling.workers} workers x accumulate {train.accumulate} = {parts}"
        yield key, f"{size} cannot be shared evenly: needs a multiple of {needed}"
    elif size < 2 * parts:
        # in the pooled branch BatchNorm sees one value per channel and image
        yield key, f"{size} gives each of {parts} parts one image only: needs at least 2 each"


def _evaluation(data: DataSettings) -> Iterator[Finding]:
    if data.evaluation == "resized" and data.input_scale != 1:
        needed = "needs 1 with evaluation: resized, which sets the size of images"
        yield ("data", "input_scale"), f"{needed}, got {data.input_scale:g}"


def _sliding(data: DataSettings) -> Iterator[Finding]:
    key = ("data", "eval_stride")
    if data.eval_stride is None:
        return
    if data.evaluation != "sliding":
        yield key, f"needs evaluation: sliding, got evaluation: {data.evaluation}"
    elif any(step > side for step, side in zip(data.eval_stride, data.crop, strict=True)):
        needed = f"needs at most the crop {list(data.crop)}, or pixels would be skipped"
        yield key, f"{needed}, got {list(data.eval_stride)}"


def _test_split(data: DataSettings) -> Iterator[Finding]:
    if data.test_split is not None and data.test_split in (data.train_split, data.val_split):
        yield (
            ("data", "test_split"),
            f"needs a split other than train_split and val_split, got '{data.test_split}'",
        )


def _weights(name: str, network: ModelSettings | None) -> Iterator[Finding]:
    if network is None:
        return
    if network.pretrained == "imagenet" and network.width != 1:
        yield (
            (name, "pretrained"),
            f"imagenet weights exist for width 1, not {network.width:g}; use 'none'",
        )
    if network.pretrained == "none" and network.pretrained_sha256:
        yield (
            (name, "pretrained_sha256"),
            "needs a file in pretrained, which is none; remove it, or name the file",
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
        yield ("teacher",), f"is missing: method '{method.name}' needs one"


def _layers(name: str, method: MethodSettings, network: ModelSettings | None) -> Iterator[Finding]:
    method_class = registry.load("method", method.name)
    if network is None or not hasattr(method_class, "taps"):
        return
    # a user's own network may name its taps only once it is built
    known = getattr(registry.load("arch", network.arch), "tap_names", None)
    if known is None:
        return
    key: tuple[str, ...] = ("method", "layers")
    if not hasattr(method, "layers"):
        key = ("method",)
    for layer in method_class.taps(method):
        is_module_path = "." in layer or "[" in layer  # as in `encoder.layer2`, known once built
        if layer not in known and not is_module_path:
            yield key, f"the {name} has no layer '{layer}'{registry.suggestion(layer, known)}"
            return


def _several_metrics(tune: TuneSettings, search: Mapping[str, Any]) -> Iterator[Finding]:
    if len(tune.metrics) == 1:
        return
    yield from _constant_metrics(tune, search)
    if tune.early_stopping != "none":
        why = f"'{tune.early_stopping}' compares trials by one metric"
        yield ("tune", "early_stopping"), f"{why}; with several, needs none, or leave it out"
    reason = traits_of(tune.sampler).single_metric_reason
    if reason:
        yield ("tune", "sampler"), f"'{tune.sampler}' {reason}; needs {any_of(MULTI_METRIC)}"


def _constant_metrics(tune: TuneSettings, search: Mapping[str, Any]) -> Iterator[Finding]:
    for metric in tune.metrics:
        paths = CHANGED_BY.get(metric)
        if paths and search.keys().isdisjoint(paths):
            needed = f"needs one of {', '.join(paths[1:])} in search:"
            yield ("tune", "metric"), f"{metric} is the same for every trial: {needed}"


_RULES: list[tuple[Callable[..., Iterator[Finding]], tuple[str, ...]]] = [
    (_evaluation, ("data",)),
    (_sliding, ("data",)),
    (_test_split, ("data",)),
    (_batch, ("train", "scaling")),
    (_teacher_batch, ("teacher", "train", "scaling")),
    (partial(_weights, "student"), ("student",)),
    (partial(_weights, "teacher"), ("teacher",)),
    (_teacher_source, ("teacher",)),
    (_teacher_weights, ("teacher",)),
    (_teacher_needed, ("method", "teacher")),
    (partial(_layers, "student"), ("method", "student")),
    (partial(_layers, "teacher"), ("method", "teacher")),
    (_several_metrics, ("tune", "search")),
]
