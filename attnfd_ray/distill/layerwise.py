"""What methods share that compare the two networks one feature at a time: settings, connectors, one
term a layer.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from attnfd_ray.config.schema import MethodSettings
from attnfd_ray.config.types import Layers, LossWeight
from attnfd_ray.distill.features import TapModuleDict, resized
from attnfd_ray.distill.method import Method, Networks


class LogitSettings(MethodSettings):
    """Of a method that compares logits."""

    loss_weight: LossWeight


class LayerSettings(MethodSettings):
    """Of a method that compares features."""

    layers: Layers
    loss_weight: LossWeight


class LayerwiseMethod(Method):
    """At each layer, `loss_weight` x the distance between the student's feature and the teacher's.

    The student's feature goes through the layer's connector, then to the teacher's height and
    width. A subclass says what `distance` is, and what the `connector` is if there is one.
    """

    def __init__(self, settings: Any, networks: Networks) -> None:
        super().__init__()
        self.settings = settings
        self.connectors = TapModuleDict(
            {
                layer: self.connector(
                    networks.student_channels[layer], networks.teacher_channels[layer]
                )
                for layer in self.taps(settings)
            }
        )

    @classmethod
    def taps(cls, settings: Any) -> tuple[str, ...]:
        """Return the layers that are compared."""
        return tuple(settings.layers)

    def connector(self, student_channels: int, teacher_channels: int) -> nn.Module:
        """Return what the student's feature of a layer goes through, freshly initialised."""
        return nn.Identity()

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        """Return a scalar, a mean over images; heights and widths are equal."""
        raise NotImplementedError

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        terms = {}
        for layer, connect in self.connectors.items():
            target = teacher[layer].detach()
            distance = self.distance(resized(connect(student[layer]), target), target)
            terms[f"{self.settings.name}/{layer}"] = self.settings.loss_weight * distance
        return terms


class LogitMethod(LayerwiseMethod):
    """The same for the logits before their last up-sampling; both networks have a channel a
    class.
    """

    @classmethod
    def taps(cls, settings: Any) -> tuple[str, ...]:
        """Return the logits, whatever the settings."""
        return ("logits",)
