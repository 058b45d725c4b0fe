"""What training, report and command line share about the gradients of the loss terms: names, ratio,
limit.
"""

from __future__ import annotations

from collections.abc import Mapping

CROSS_ENTROPY = "cross_entropy"  # the name of this loss term
DISTILLATION = "distillation"  # stands for all further loss terms together
MAX_RATIO = 3.0  # |distillation| / |cross-entropy| above this can take over the training


def gradient_ratio(norms: Mapping[str, float]) -> float | None:
    """Return |distillation| / |cross-entropy| of `term -> L2 norm of its gradient`.

    None where nothing was measured, and where the gradient of the cross-entropy is zero.
    """
    distillation, cross_entropy = norms.get(DISTILLATION), norms.get(CROSS_ENTROPY)
    return distillation / cross_entropy if distillation is not None and cross_entropy else None
