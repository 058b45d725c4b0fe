"""The trained module: student and method, wrapped by DistributedDataParallel. No ray."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray.config.gradients import CROSS_ENTROPY, DISTILLATION
from attnfd_ray.config.types import IGNORED
from attnfd_ray.errors import ConfigError
from attnfd_ray.models import SegmentationModel, TapRecorder


class DistillationTask(nn.Module):
    """Computes the named loss terms of a batch. Their sum is the loss.

    The cross-entropy is a mean over the labelled pixels of the global batch, so splitting a batch
    over workers or over accumulated parts changes nothing. The teacher is not part of the module;
    its features are an argument of `forward`. Every term is multiplied by `factor`.
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
        self._trainable = [
            name for name, parameter in self.named_parameters() if parameter.requires_grad
        ]

    def freeze(self, prefixes: tuple[str, ...]) -> None:
        """Freeze the parameters under the module paths `prefixes`, and unfreeze all others.

        Parameters that were not trainable at first stay so. Call it before the task is wrapped for
        several workers. A frozen parameter has no gradient, so the optimiser does not change it or
        its momentum. Raises AttributeError for a prefix that is not a module.
        """
        for prefix in prefixes:
            self.get_submodule(prefix)
        starts = tuple(f"{prefix}." for prefix in prefixes)
        for name in self._trainable:
            is_frozen = name.startswith(starts)
            self.get_parameter(name).requires_grad_(not is_frozen)

    def forward(
        self,
        images_NCHW: Tensor,
        labels_NHW: Tensor,
        teacher_features: dict[str, Tensor],
        *,
        labelled_pixels: Tensor,
        image_share: float,
    ) -> dict[str, Tensor]:
        """Return the loss terms of this part of the batch.

        The summed cross-entropy is divided by `labelled_pixels`. The method's terms, which are
        means over images, are multiplied by `image_share`: the images of this part / the images of
        this worker in one optimiser step. Raises ConfigError where the method uses a reserved name.
        """
        logits_NCHW = self.student(images_NCHW)
        cross_entropy_sum = F.cross_entropy(
            logits_NCHW.float(), labels_NHW, ignore_index=IGNORED, reduction="sum"
        )
        terms = {CROSS_ENTROPY: cross_entropy_sum / labelled_pixels}
        method_terms = self.method(self._recorder.features, teacher_features, labels_NHW)
        self._recorder.clear()
        reserved = {CROSS_ENTROPY, DISTILLATION} & method_terms.keys()
        if reserved:
            raise ConfigError(
                f"method: its loss terms need other names than {', '.join(sorted(reserved))}"
            )
        for name, term in method_terms.items():
            terms[name] = term * image_share
        if self._factor == 1:
            return terms
        return {name: term * self._factor for name, term in terms.items()}
