"""CIRKD: pixels of different images relate to one another as in the teacher.

Source: cross-image relational knowledge distillation, Yang et al., CVPR 2022. The mini-batch term
compares the pixels of one image with those of every image of the batch. With `memory: true` two
more terms compare them with pixels and regions that the teacher saw before. The paper adds the
method `kd` at temperature 1.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.config.types import IGNORED, AboveZero, Layers, LossWeight, Positive
from attnfd_ray.distill.class_queue import ClassQueue
from attnfd_ray.distill.features import TapModuleDict, connector, in_full_precision, resized
from attnfd_ray.distill.labels import class_means, labels_at
from attnfd_ray.distill.layerwise import LayerSettings
from attnfd_ray.distill.method import Method, Networks

_TINY = 1e-8  # avoids a division by zero for a feature that is all zero
_NEVER = -1e9  # similarity to an entry that was never filled: its probability is 0

MemoryWeight = Annotated[
    float,
    Field(
        ge=0,
        description="With memory: a factor on this term, in addition to loss_weight (the authors "
        "take 0.01 on VOC).",
    ),
]


class CIRKD(Method):
    """Cross-image relational distillation.

    Images are compared with one another, so cutting the batch loses the pairs that it separates.
    A memory also depends on the order in which images came. Therefore it sets `depends_on_batch`.
    With several workers, images are paired within a worker. The memory takes in the images of all
    workers and is the same on each, so rank 0's checkpoint is valid for all.
    """

    depends_on_batch = True

    class Settings(LayerSettings):
        """`method: {name: cirkd, ...}`; defaults are the paper's unless a description differs."""

        name: Literal["cirkd"] = "cirkd"
        layers: Layers = ["decoder"]
        temperature: Annotated[
            AboveZero, Field(description="The temperature of similarities within the batch.")
        ] = 0.1
        max_size: Annotated[
            Positive,
            Field(
                description="Features are average-pooled to at most this height and width, in "
                "pixels. The comparison takes memory for images^2 x pixels^2 numbers (the original "
                "pools sides of 256 and above to 64)."
            ),
        ] = 32
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on every loss term; 0 trains the student without distillation "
                "(the paper adds kd of weight 1)."
            ),
        ] = 1.0
        memory: Annotated[
            bool,
            Field(
                description="Whether pixels are also compared with pixels and regions that the "
                "teacher saw before."
            ),
        ] = False
        memory_temperature: Annotated[
            AboveZero,
            Field(description="With memory: the temperature of similarities to its entries."),
        ] = 0.1
        pixel_weight: MemoryWeight = 0.1
        region_weight: MemoryWeight = 0.1
        pixel_queue: Annotated[
            Positive, Field(description="With memory: how many pixels of each class it keeps.")
        ] = 20_000
        region_queue: Annotated[
            Positive, Field(description="With memory: how many regions of each class it keeps.")
        ] = 2_000
        pixels_per_image: Annotated[
            Positive,
            Field(
                description="With memory: how many pixels of each class it takes from an image at "
                "most."
            ),
        ] = 16
        pixel_samples: Annotated[
            Positive,
            Field(description="With memory: about this many of its pixels are used in each step."),
        ] = 4096
        region_samples: Annotated[
            Positive,
            Field(description="With memory: about this many of its regions are used in each step."),
        ] = 1024

    def __init__(self, settings: Settings, networks: Networks) -> None:
        super().__init__()
        self.settings = settings
        self.memories = TapModuleDict()
        if settings.memory:
            for layer in settings.layers:
                self.memories[layer] = TeacherMemory(
                    settings,
                    networks.student_channels[layer],
                    networks.teacher_channels[layer],
                    networks.num_classes,
                )

    @classmethod
    def taps(cls, settings: Settings) -> tuple[str, ...]:
        """Return the layers that are compared."""
        return tuple(settings.layers)

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        settings = self.settings
        weight = settings.loss_weight
        terms = {}
        for layer in settings.layers:
            target = pooled(teacher[layer].detach(), settings.max_size)
            guess = pooled(resized(student[layer], teacher[layer]), settings.max_size)
            distance = cross_image_distance(guess, target, temperature=settings.temperature)
            terms[f"cirkd/{layer}"] = weight * distance
            if settings.memory:
                pixels, regions = self.memories[layer](guess, target, labels_at(labels_NHW, target))
                terms[f"cirkd/{layer}/pixels"] = weight * settings.pixel_weight * pixels
                terms[f"cirkd/{layer}/regions"] = weight * settings.region_weight * regions
        return terms


class TeacherMemory(nn.Module):
    """The teacher's features of each class at one layer, and the head of the student.

    The head maps the student's features to the teacher's channels. The memory takes in a batch in
    training mode only, before entries are drawn from it, as in the released code. Two things differ
    from that code. The pixels kept of a class are pixels of that class; there the indices are
    wrong. Only filled entries are drawn; there an empty entry holds a random vector.
    """

    def __init__(
        self,
        settings: CIRKD.Settings,
        student_channels: int,
        teacher_channels: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.num_classes = num_classes
        self.head = nn.Sequential(
            *connector(student_channels, teacher_channels),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, kernel_size=1, bias=False),
        )
        self.pixels = ClassQueue(num_classes, settings.pixel_queue, teacher_channels)
        self.regions = ClassQueue(num_classes, settings.region_queue, teacher_channels)

    def forward(
        self, student_NCHW: Tensor, teacher_NCHW: Tensor, labels_NHW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the distances with respect to pixels and to regions, two scalars."""
        if self.training:
            self.remember(teacher_NCHW, labels_NHW)
        guess_NCHW = self.head(student_NCHW)
        labelled_NHW = labels_NHW != IGNORED

        def distance(queue: ClassQueue, samples: int) -> Tensor:
            entries_EC, known_E = queue.draw(samples // self.num_classes + 1)
            return memory_distance(
                guess_NCHW,
                teacher_NCHW,
                entries_EC,
                known_E,
                labelled_NHW=labelled_NHW,
                temperature=self.settings.memory_temperature,
            )

        pixels = distance(self.pixels, self.settings.pixel_samples)
        regions = distance(self.regions, self.settings.region_samples)
        return pixels, regions

    @torch.no_grad()
    def remember(self, teacher_NCHW: Tensor, labels_NHW: Tensor) -> None:
        """Take in, of each image and class, some pixels at random and the mean of all pixels."""
        units_NCHW = F.normalize(teacher_NCHW.to(self.pixels.entries.dtype), dim=1, eps=_TINY)
        entries_MKC, present_MK = some_pixels(
            units_NCHW, labels_NHW, self.num_classes, self.settings.pixels_per_image
        )
        self.pixels.push(entries_MKC, present_MK)
        means_NKC, counts_NK = class_means(units_NCHW, labels_NHW, self.num_classes)
        self.regions.push(F.normalize(means_NKC, dim=2, eps=_TINY), counts_NK > 0)


def pooled(features_NCHW: Tensor, max_size: int) -> Tensor:
    """Return the features averaged to at most `max_size` pixels in height and width."""
    height, width = features_NCHW.shape[-2:]
    if max(height, width) <= max_size:
        return features_NCHW
    return F.adaptive_avg_pool2d(features_NCHW, (min(height, max_size), min(width, max_size)))


@in_full_precision
def cross_image_distance(
    student_NCHW: Tensor, teacher_NCHW: Tensor, *, temperature: float
) -> Tensor:
    """Return KL(teacher || student) of a pixel's similarities to all pixels of an image.

    It is a mean over pixels and over all pairs of images, each image with itself included; >= 0.
    Similarities are cosines / `temperature`. It is invariant to scaling either side by a positive
    number.
    """
    num_images = len(student_NCHW)

    def similarities(features_NCHW: Tensor) -> Tensor:
        units_PC = F.normalize(features_NCHW, dim=1, eps=_TINY).flatten(2).mT.flatten(0, 1)
        return (units_PC @ units_PC.mT / temperature).view(len(units_PC), num_images, -1)

    return _divergence(similarities(student_NCHW), similarities(teacher_NCHW)).mean()


@in_full_precision
def memory_distance(
    student_NCHW: Tensor,
    teacher_NCHW: Tensor,
    entries_EC: Tensor,
    known_E: Tensor,
    *,
    labelled_NHW: Tensor,
    temperature: float,
) -> Tensor:
    """Return KL(teacher || student) of a pixel's similarities to the known entries.

    It is a mean over labelled pixels, and zero where no pixel is labelled.
    """

    def similarities(features_NCHW: Tensor) -> Tensor:
        units_NPC = F.normalize(features_NCHW, dim=1, eps=_TINY).flatten(2).mT
        return (units_NPC @ entries_EC.mT / temperature).masked_fill(~known_E, _NEVER)

    labelled_NP = labelled_NHW.flatten(1)
    divergences_NP = _divergence(similarities(student_NCHW), similarities(teacher_NCHW))
    return (divergences_NP * labelled_NP).sum() / labelled_NP.sum().clamp(min=1)


def _divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return KL(teacher || student) over the last axis."""
    student_log = student_logits.log_softmax(dim=-1)
    teacher_log = teacher_logits.log_softmax(dim=-1)
    return F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(dim=-1)


def some_pixels(
    features_NCHW: Tensor, labels_NHW: Tensor, num_classes: int, most: int
) -> tuple[Tensor, Tensor]:
    """Return up to `most` pixels of each class of each image as entries_MKC and present_MK.

    They are drawn from torch's global generator without replacement.
    """
    labels_NP = labels_NHW.flatten(1)
    num_images, num_pixels = labels_NP.shape
    classes_K1 = torch.arange(num_classes, device=labels_NHW.device)[:, None]
    is_class_NKP = labels_NP[:, None] == classes_K1
    lots_NP = torch.rand_like(labels_NP, dtype=torch.float32)
    lots_NKP = torch.where(is_class_NKP, lots_NP[:, None], -1.0)
    best = lots_NKP.topk(min(most, num_pixels), dim=2)
    image_N11 = torch.arange(num_images, device=labels_NHW.device)[:, None, None]
    entries_NKSC = features_NCHW.flatten(2).mT[image_N11, best.indices]
    entries_MKC = entries_NKSC.transpose(1, 2).flatten(0, 1)
    present_MK = (best.values >= 0).transpose(1, 2).flatten(0, 1)
    return entries_MKC, present_MK
