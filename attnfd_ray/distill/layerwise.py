"""Base classes of methods that compare the networks layer by layer, one loss term a layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from attnfd_ray.config.schema import MethodSettings
from attnfd_ray.config.types import Layers, LossWeight
from attnfd_ray.distill.features import TapModuleDict, resized
from attnfd_ray.distill.method import Method, Networks


class LogitSettings(MethodSettings):
    """Settings of a method that compares logits."""

    loss_weight: LossWeight


class LayerSettings(MethodSettings):
    """Settings of a method that compares features; `layers` are taps, each at most once."""

    layers: Layers
    loss_weight: LossWeight


class LayerwiseMethod(Method):
    """Returns, for each layer, `loss_weight` x the distance between student and teacher.

    At each layer the student's features_NCHW pass the layer's connector and are then resized to the
    teacher's height and width. The term is named `method/layer`, as in `fitnet/decoder`. A subclass
    defines `Settings` and `distance`, and `connector` where channels may differ.

    The mean absolute difference of features, after a 1x1 convolution:

    >>> import torch
    >>> from attnfd_ray.distill.layerwise import LayerSettings, LayerwiseMethod
    >>> from attnfd_ray.distill.method import Networks
    >>> class MyLoss(LayerwiseMethod):
    ...     class Settings(LayerSettings):
    ...         name: str = "mypackage.losses:MyLoss"
    ...         layers: list[str] = ["decoder"]
    ...         loss_weight: float = 1.0
    ...
    ...     def connector(self, student_channels, teacher_channels):
    ...         return nn.Conv2d(student_channels, teacher_channels, kernel_size=1)
    ...
    ...     def distance(self, student_NCHW, teacher_NCHW):
    ...         return (student_NCHW.float() - teacher_NCHW.float()).abs().mean()
    >>> networks = Networks(student_channels={"decoder": 8}, teacher_channels={"decoder": 16})
    >>> method = MyLoss(MyLoss.Settings(loss_weight=2.0), networks)
    >>> student = {"decoder": torch.zeros(2, 8, 5, 6)}
    >>> teacher = {"decoder": torch.zeros(2, 16, 10, 12)}
    >>> labels_NHW = torch.zeros(2, 40, 48, dtype=torch.long)
    >>> [(name, term.shape) for name, term in method(student, teacher, labels_NHW).items()]
    [('mypackage.losses:MyLoss/decoder', torch.Size([]))]
    """

    def __init__(self, settings: Any, networks: Networks) -> None:
        super().__init__()
        self.settings = settings
        self.connectors = TapModuleDict()
        for layer in self.taps(settings):
            self.connectors[layer] = self.connector(
                networks.student_channels[layer], networks.teacher_channels[layer]
            )

    @classmethod
    def taps(cls, settings: Any) -> tuple[str, ...]:
        """Return the layers that are compared."""
        return tuple(settings.layers)

    def connector(self, student_channels: int, teacher_channels: int) -> nn.Module:
        """Return the module that a layer's student features pass, freshly initialised.

        It maps features_NCHW with `student_channels` to `teacher_channels`. By default it changes
        nothing.
        """
        return nn.Identity()

    def distance(self, student_NCHW: Tensor, teacher_NCHW: Tensor) -> Tensor:
        """Return the distance of one layer, a scalar that is a mean over images.

        Heights and widths are equal. The teacher's features carry no gradient. Under mixed
        precision both may be in half precision.
        """
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
    """A layerwise method on the logits before the last up-sampling, one channel a class."""

    @classmethod
    def taps(cls, settings: Any) -> tuple[str, ...]:
        """Return the logits, whatever the settings."""
        return ("logits",)
