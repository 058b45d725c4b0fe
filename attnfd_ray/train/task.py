"""Student and method as one module: what DistributedDataParallel wraps and the optimiser trains."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.config.gradients import CROSS_ENTROPY, DISTILLATION
from attnfd_ray.config.types import IGNORED
from attnfd_ray.errors import ConfigError
from attnfd_ray.models import SegmentationModel, TapRecorder


class DistillationTask(nn.Module):
    """Named loss terms of a batch; their sum is the loss.

    The cross-entropy is a mean over the labelled pixels of the *global* batch: `share` says what
    part of them a call holds is divided by, so that cutting a batch over workers or over
    accumulated parts changes nothing. The teacher stays outside; its features come as an argument.
    `factor` is on every term.
    """

    def __init__(
        self,
        student: SegmentationModel,
        method: nn.Module,
        taps: tuple[str, ...],
        *,
        factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.student = student
        self.method: Any = method
        self._factor = factor
        self._recorder = TapRecorder(student, taps)
        self._learning = [
            name for name, parameter in self.named_parameters() if parameter.requires_grad
        ]

    def freeze(self, prefixes: tuple[str, ...]) -> None:
        """Let the parameters under `prefixes` rest, and all others learn that ever do.

        A prefix without a module is an AttributeError. Comes before the task is wrapped for several
        workers. A resting parameter has no gradient, so the optimiser leaves it and its momentum
        alone.
        """
        for prefix in prefixes:
            self.get_submodule(prefix)
        for name in self._learning:
            self.get_parameter(name).requires_grad_(
                not name.startswith(tuple(f"{prefix}." for prefix in prefixes))
            )

    def forward(
        self,
        images_NCHW: Tensor,
        labels_NHW: Tensor,
        teacher_features: dict[str, Tensor],
        *,
        labelled_pixels: Tensor,
        image_share: float,
    ) -> dict[str, Tensor]:
        """Return the terms of this part of the batch.

        `labelled_pixels` is the divisor of the summed cross-entropy, `image_share` the factor on
        the method's means over images (this part's images / those that one optimiser step of this
        worker sees).
        """
        logits_NCHW = self.student(images_NCHW)
        summed = F.cross_entropy(
            logits_NCHW.float(), labels_NHW, ignore_index=IGNORED, reduction="sum"
        )
        terms = {CROSS_ENTROPY: summed / labelled_pixels}
        method_terms = self.method(self._recorder.features, teacher_features, labels_NHW)
        self._recorder.clear()
        reserved = {CROSS_ENTROPY, DISTILLATION} & method_terms.keys()
        if reserved:
            raise ConfigError(
                f"method: its loss terms need other names than {', '.join(sorted(reserved))}"
            )
        terms |= {name: term * image_share for name, term in method_terms.items()}
        return (
            {name: term * self._factor for name, term in terms.items()}
            if self._factor != 1
            else terms
        )
