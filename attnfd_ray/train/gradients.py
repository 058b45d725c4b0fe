"""Measures how strongly each loss term acts on the student: gradient norms and directions. No ray.

Let w be the student's trainable parameters (without connectors and gates), L_ce the cross-entropy,
L_i the other terms as they are added to it, and L_d the sum of all L_i ("distillation"). Then

    norm_i = |dL_i/dw|        cosine_i = <dL_i/dw, dL_ce/dw> / (|dL_i/dw| |dL_ce/dw|)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor, nn

from attnfd_ray.config.gradients import CROSS_ENTROPY, DISTILLATION
from attnfd_ray.train.distributed import all_reduce_sum, world_size


class GradientMeter:
    """Collects gradient norms and cosines at some steps of one epoch.

    It measures at `checks` of the epoch's `steps` optimiser steps, evenly spaced and including the
    last. With fewer steps than checks it measures at every step, and with `checks` 0 at none.
    Measuring does not affect training: `.grad`, the hooks of DistributedDataParallel, BatchNorm
    statistics and random generators stay the same.
    """

    def __init__(self, student: nn.Module, *, steps: int, checks: int) -> None:
        self.student = student
        self.due_steps: set[int] = set()  # numbers from 1
        for check in range(1, checks + 1):
            self.due_steps.add(math.ceil(steps * check / checks))
        self._norms: dict[str, list[float]] = {}
        self._cosines: dict[str, list[float]] = {}

    @property
    def norms(self) -> dict[str, float]:
        """Loss term -> L2 norm of its gradient, the mean over checks.

        `distillation` is the sum of all terms but the cross-entropy. Empty where nothing was
        measured.
        """
        return _means(self._norms)

    @property
    def cosines(self) -> dict[str, float]:
        """Loss term -> cosine of its gradient with the cross-entropy's, the mean over checks.

        Without the cross-entropy itself, and without terms for which one of the two gradients was
        zero at every check.
        """
        return _means(self._cosines)

    def measure(self, terms: Mapping[str, Tensor], scaler: torch.amp.GradScaler) -> None:
        """Measure the gradients of a step's loss terms (scalars) before backward.

        The graph is kept for backward. Every worker calls it at the same step and gets the same
        numbers: those of the mean gradient over workers, which is that of the global batch. With
        `train.accumulate` above 1 it is called for the first part of a step only, so norms are
        those of that part. It does nothing where there is no term but the cross-entropy, or nothing
        of the student is trained. A check at which a gradient overflows is left out, as in fp16
        before the scale has settled.

        It holds three vectors of the student's size at a time, and the gradient that autograd has
        just made.
        """
        parameters = [
            parameter for parameter in self.student.parameters() if parameter.requires_grad
        ]
        other_names = [name for name in terms if name != CROSS_ENTROPY]
        if not parameters or not other_names:
            return
        reference_term = scaler.scale(terms[CROSS_ENTROPY])
        reference = _gradient(reference_term, parameters)
        total = torch.zeros_like(reference)
        norms = {CROSS_ENTROPY: torch.linalg.vector_norm(reference)}
        products: dict[str, Tensor] = {}
        for name in other_names:
            # Scaled as for backward, or gradients of half-precision features would vanish. The
            # added zero has the graph of the cross-entropy: SyncBatchNorm's backward pass waits for
            # the other workers, so every worker must run it, even where a term is constant on that
            # worker.
            gradient = _gradient(scaler.scale(terms[name]) + 0 * reference_term, parameters)
            norms[name] = torch.linalg.vector_norm(gradient)
            products[name] = torch.dot(gradient, reference)
            total += gradient
            del gradient
        norms[DISTILLATION] = torch.linalg.vector_norm(total)
        products[DISTILLATION] = torch.dot(total, reference)
        self._add_check(_to_floats(norms), _to_floats(products), scaler.get_scale())

    def _add_check(
        self, norms: Mapping[str, float], products: Mapping[str, float], scale: float
    ) -> None:
        """Add the numbers of one check; `scale` is the factor on its norms."""
        numbers = (*norms.values(), *products.values())
        if not all(map(math.isfinite, numbers)):
            return
        for name, norm in norms.items():
            self._norms.setdefault(name, []).append(norm / scale)
        for name, product in products.items():
            lengths = norms[name] * norms[CROSS_ENTROPY]
            if lengths > 0:
                cosine = product / lengths
                cosine = min(1.0, max(-1.0, cosine))  # against rounding errors
                self._cosines.setdefault(name, []).append(cosine)


def _gradient(term: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the gradient of a term as one vector, averaged over workers.

    It is zero for parameters that the term does not depend on.
    """
    gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    vectors: list[Tensor] = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            gradient = torch.zeros_like(parameter)
        vectors.append(gradient.flatten())
    return all_reduce_sum(torch.cat(vectors)).div_(world_size())


def _to_floats(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    values = torch.stack(list(scalars.values())).tolist()
    return dict(zip(scalars, values, strict=True))


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: fmean(numbers) for name, numbers in values.items()}
