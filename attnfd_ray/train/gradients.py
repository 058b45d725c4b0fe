"""How strongly each loss term pulls at the student: the norms of the terms' gradients, and their
directions.

For the learning parameters w of the student alone (no connectors, no gates), with L_ce the
cross-entropy, L_i the further terms as they are added to it, and L_d the sum of all L_i
("distillation"):

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

    Measures at `checks` evenly spaced of the epoch's `steps` optimiser steps, the last one at its
    last step; at every step where there are fewer steps than checks, and never for `checks` 0.
    Measuring changes nothing that is trained: it leaves `.grad`, the hooks of
    DistributedDataParallel, BatchNorm statistics and random generators alone.
    """

    def __init__(self, student: nn.Module, *, steps: int, checks: int) -> None:
        self.student = student
        self.due_steps = {
            -(-steps * check // checks) for check in range(1, checks + 1)
        }  # rounded up, from 1
        self._norms: dict[str, list[float]] = {}
        self._cosines: dict[str, list[float]] = {}

    @property
    def norms(self) -> dict[str, float]:
        """Loss term -> L2 norm of its gradient, the mean over checks; `distillation` is all but the
        cross-entropy.

        Empty where nothing was measured.
        """
        return _means(self._norms)

    @property
    def cosines(self) -> dict[str, float]:
        """Loss term -> cosine of its gradient with the cross-entropy's, the mean over checks.

        The cross-entropy itself is left out, and so is a pair of which one gradient was zero at
        every check.
        """
        return _means(self._cosines)

    def measure(self, terms: Mapping[str, Tensor], scaler: torch.amp.GradScaler) -> None:
        """Take the gradients of a step's terms (scalars), before backward; the graph is kept for
        that.

        Every worker calls it at the same step and gets the same numbers: those of the mean gradient
        over workers, which is that of the global batch. With `train.accumulate` above 1 it is
        called for the first part of a step only, so norms are those of that part. Does nothing for
        a student alone, and where nothing of the student learns. A check at which a gradient
        overflows, as in fp16 before the scale has settled, is left out.

        Three vectors of the student's size are held at a time, beside the gradient that autograd
        has just made.
        """
        parameters = [
            parameter for parameter in self.student.parameters() if parameter.requires_grad
        ]
        further = [name for name in terms if name != CROSS_ENTROPY]
        if not parameters or not further:
            return
        reference_term = scaler.scale(terms[CROSS_ENTROPY])
        reference = _gradient(reference_term, parameters)
        total = torch.zeros_like(reference)
        norms, products = {CROSS_ENTROPY: torch.linalg.vector_norm(reference)}, {}
        for name in further:
            # Scaled as for backward, or gradients of half-precision features would vanish. The
            # added zero has the graph of the cross-entropy: SyncBatchNorm's backward pass waits for
            # the other workers, so every worker must run it, even where a term is constant on that
            # worker.
            gradient = _gradient(scaler.scale(terms[name]) + 0 * reference_term, parameters)
            norms[name], products[name] = (
                torch.linalg.vector_norm(gradient),
                torch.dot(gradient, reference),
            )
            total += gradient
            del gradient
        norms[DISTILLATION], products[DISTILLATION] = (
            torch.linalg.vector_norm(total),
            torch.dot(total, reference),
        )
        self._keep(_numbers(norms), _numbers(products), scaler.get_scale())

    def _keep(
        self, norms: Mapping[str, float], products: Mapping[str, float], scale: float
    ) -> None:
        if not all(map(math.isfinite, (*norms.values(), *products.values()))):
            return
        for name, norm in norms.items():
            self._norms.setdefault(name, []).append(norm / scale)
        for name, product in products.items():
            lengths = norms[name] * norms[CROSS_ENTROPY]
            if lengths > 0:
                cosine = min(1.0, max(-1.0, product / lengths))  # rounding goes beyond
                self._cosines.setdefault(name, []).append(cosine)


def _gradient(term: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the gradient of a term as one vector, the mean over workers; zero where it depends on
    nothing.
    """
    found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(parameters, found, strict=True)
    flat = torch.cat(
        [
            (torch.zeros_like(parameter) if part is None else part).flatten()
            for parameter, part in pairs
        ]
    )
    return all_reduce_sum(flat).div_(world_size())


def _numbers(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    return dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True))


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: fmean(found) for name, found in values.items()}
