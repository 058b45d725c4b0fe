"""How gradients of loss terms are compared: names, ratio and warning limit. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping

CROSS_ENTROPY = "cross_entropy"  # the name of this loss term
DISTILLATION = "distillation"  # stands for all other loss terms together
MAX_RATIO = 3.0  # |distillation| / |cross-entropy| above this can dominate the training


def gradient_ratio(norms: Mapping[str, float]) -> float | None:
    """Return |distillation| / |cross-entropy| of `term -> L2 norm of its gradient`.

    None where nothing was measured, and where the gradient of the cross-entropy is zero.
    """
    distillation = norms.get(DISTILLATION)
    cross_entropy = norms.get(CROSS_ENTROPY)
    if distillation is None or not cross_entropy:
        return None
    return distillation / cross_entropy
