"""IFVD: a pixel is as similar to the mean of its class as in the teacher.

Source: intra-class feature variation distillation, Wang et al., ECCV 2020. The paper adds the
method `kd` and an adversarial term, which is left out.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from attnfd_ray.config.types import IGNORED, Layers, LossWeight
from attnfd_ray.distill.features import in_full_precision, resized
from attnfd_ray.distill.labels import class_means, labels_at
from attnfd_ray.distill.layerwise import LayerSettings
from attnfd_ray.distill.method import Method, Networks

_TINY = 1e-8  # avoids a division by zero for a feature that is all zero


class IFVD(Method):
    """Intra-class feature variation distillation; it has no parameters."""

    class Settings(LayerSettings):
        """`method: {name: ifvd, ...}`."""

        name: Literal["ifvd"] = "ifvd"
        layers: Layers = ["decoder"]
        loss_weight: Annotated[
            LossWeight,
            Field(
                description="Factor on the loss terms; 0 trains the student without distillation "
                "(200 in the original, with kd of weight 10; 20 in CIRKD's experiments, CVPR 2022)."
            ),
        ] = 200.0

    def __init__(self, settings: Settings, networks: Networks) -> None:
        super().__init__()
        self.settings = settings
        self.num_classes = networks.num_classes

    @classmethod
    def taps(cls, settings: Settings) -> tuple[str, ...]:
        """Return the layers that are compared."""
        return tuple(settings.layers)

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels_NHW: Tensor
    ) -> dict[str, Tensor]:
        terms = {}
        for layer in self.settings.layers:
            target = teacher[layer].detach()
            labels = labels_at(labels_NHW, target)
            guess = resized(student[layer], target)
            distance = variation_distance(guess, target, labels, num_classes=self.num_classes)
            terms[f"ifvd/{layer}"] = self.settings.loss_weight * distance
        return terms


@in_full_precision
def variation_distance(
    student_NCHW: Tensor, teacher_NCHW: Tensor, labels_NHW: Tensor, *, num_classes: int
) -> Tensor:
    """Return (m^s - m^t)^2, see `variation`, as a mean over all pixels, in [0, 4].

    Labels are at the size of the features. An ignored pixel counts in the mean with no error, as in
    the original. It is invariant to scaling either side by a positive number.
    """
    student_NHW = variation(student_NCHW, labels_NHW, num_classes)
    teacher_NHW = variation(teacher_NCHW, labels_NHW, num_classes)
    errors_NHW = (student_NHW - teacher_NHW).square()
    return (errors_NHW * (labels_NHW != IGNORED)).mean()


def variation(features_NCHW: Tensor, labels_NHW: Tensor, num_classes: int) -> Tensor:
    """Return m_NHW, the cosine of each feature with the mean of its class in its image.

    The values of ignored pixels have no meaning.
    """
    means_NKC, _ = class_means(features_NCHW, labels_NHW, num_classes)
    units_NCP = F.normalize(features_NCHW.flatten(2), dim=1, eps=_TINY)
    cosines_NKP = F.normalize(means_NKC, dim=2, eps=_TINY) @ units_NCP
    # ignored pixels need the index of some class
    own_class_NP = labels_NHW.long().flatten(1).clamp(max=num_classes - 1)
    return cosines_NKP.gather(1, own_class_NP[:, None])[:, 0].view(labels_NHW.shape)
