"""A method between a small student and a wider teacher, as the contract of methods runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from attnfd_ray import registry
from attnfd_ray.config.schema import MethodSettings, ModelSettings
from attnfd_ray.distill.batch_sums import BatchSums
from attnfd_ray.distill.method import Networks, batch_norm_stats
from attnfd_ray.models import SegmentationModel, TapRecorder, build_model

NUM_CLASSES = 5
NUM_IMAGES = 4
IMAGE_PIXELS = 33

Features = dict[str, Tensor]  # tap -> features_NCHW


@cache
def network(width: float) -> SegmentationModel:
    """Return a small DeepLabV3+ in eval mode, the same one for the same width."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(8 * width))
        settings = ModelSettings(backbone="resnet18", width=width)
        return build_model(settings, num_classes=NUM_CLASSES).eval()


def student_network() -> SegmentationModel:
    """Return the narrow network."""
    return network(0.125)


def teacher_network() -> SegmentationModel:
    """Return the wide network."""
    return network(0.25)


def labels() -> Tensor:
    """Return labels_NHW of the images, with a different share of ignored pixels in each."""
    rng = torch.Generator().manual_seed(1)
    drawn_NHW = torch.randint(NUM_CLASSES, (NUM_IMAGES, IMAGE_PIXELS, IMAGE_PIXELS), generator=rng)
    drawn_NHW[0, :20] = 255
    drawn_NHW[2, 5:] = 255
    return drawn_NHW


def features(model: SegmentationModel, taps: tuple[str, ...]) -> Features:
    """Return the features of the same random images, without gradient."""
    rng = torch.Generator().manual_seed(0)
    images_NCHW = torch.rand((NUM_IMAGES, 3, IMAGE_PIXELS, IMAGE_PIXELS), generator=rng)
    recorder = TapRecorder(model, taps)
    with torch.no_grad():
        model(images_NCHW)
    found = recorder.features
    recorder.close()
    return found


def backward(terms: Mapping[str, Tensor]) -> Tensor:
    """Run the backward pass of all terms, if any requires a gradient; return their sum."""
    loss = torch.zeros(())
    for term in terms.values():
        loss = loss + term.sum()
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    return loss


def seeded(method: Any, student: Features, teacher: Features, labels_NHW: Tensor) -> Features:
    """Return the terms of a method that may draw random numbers, always the same ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        terms: Features = method(student, teacher, labels_NHW)
    return terms


def in_two_parts(
    method: Any, student: Features, teacher: Features, labels_NHW: Tensor
) -> dict[str, float]:
    """Return the terms of a batch that is computed in parts of 1 and 3 images."""
    parts = [slice(0, 1), slice(1, NUM_IMAGES)]
    cuts = [(_part(student, part), _part(teacher, part), labels_NHW[part]) for part in parts]
    sums = BatchSums(lambda total: total, num_workers=1)
    if method.uses_batch_sums:
        for cut in cuts:
            with torch.no_grad(), sums.collecting():
                seeded(method, *cut)
        sums.all_collected()
    pieced: dict[str, float] = {}
    for cut in cuts:
        image_share = len(cut[2]) / NUM_IMAGES
        with sums.part(image_share):
            terms = seeded(method, *cut)
        for name, term in terms.items():
            pieced[name] = pieced.get(name, 0.0) + image_share * term.item()
    return pieced


def _part(features: Features, part: slice) -> Features:
    return {tap: feature[part] for tap, feature in features.items()}


@dataclass(frozen=True, kw_only=True)
class MethodCase:
    """A method by its name in settings, with `given` settings and its own defaults."""

    name: str
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Any:
        """The class of the method."""
        return registry.load("method", self.name)

    def settings(self, **changes: Any) -> MethodSettings:
        """Return its settings, with `changes` to the given ones."""
        values = {"name": self.name, **self.given, **changes}
        settings: MethodSettings = self.kind.Settings.model_validate(values)
        return settings

    def make(self, seed: int = 0, student: SegmentationModel | None = None, **changes: Any) -> Any:
        """Return the method between `student`, by default the narrow network, and the teacher."""
        student = student or student_network()
        networks = Networks(
            student_channels=student.tap_channels(),
            teacher_channels={},
            num_classes=NUM_CLASSES,
        )
        if self.kind.needs_teacher:
            teacher = teacher_network()
            networks = replace(
                networks,
                teacher_channels=teacher.tap_channels(),
                teacher_norms=batch_norm_stats(teacher),
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.kind(self.settings(**changes), networks)

    @property
    def taps(self) -> tuple[str, ...]:
        """The taps that it reads."""
        taps: tuple[str, ...] = self.kind.taps(self.settings())
        return taps

    def student(self) -> Features:
        """Return the student's features, which require a gradient."""
        found = features(student_network(), self.taps)
        return {tap: feature.requires_grad_() for tap, feature in found.items()}

    def teacher(self) -> Features:
        """Return the teacher's features, none for a method that needs no teacher."""
        if not self.kind.needs_teacher:
            return {}
        return features(teacher_network(), self.taps)
