"""Upper bounds for the disk space and the time of a search, computed before it starts."""

from __future__ import annotations

from dataclasses import dataclass

_BYTES_PER_VALUE = 4  # float32
_VALUES_PER_PARAMETER = 2  # a checkpoint holds each parameter and its momentum
_CHECKPOINTS_PER_RUN = 2  # the new one is written before the old one is deleted
_WEIGHT_FILES = 2  # best and last
_ALWAYS_KEPT = 2  # the best baseline and the as-written trial keep their weights in any case


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Parameter counts: of the student, and of all that is trained (student, gates, connectors)."""

    student: int
    learned: int


def disk_bytes(sizes: Sizes, *, trials: int, concurrent: int, keep_weights: int | None) -> int:
    """Return an upper bound for the checkpoints and weights of a search in the store, in bytes.

    `keep_weights` further trials keep their weights (None: all trials); `runtime.files.retention`
    has the rule. Checkpoints of failed trials are not included.
    """
    checkpoint_bytes = _VALUES_PER_PARAMETER * _BYTES_PER_VALUE * sizes.learned
    weights_bytes = _WEIGHT_FILES * _BYTES_PER_VALUE * sizes.student
    running = min(trials, concurrent)
    with_weights = trials
    if keep_weights is not None:
        with_weights = min(trials, running + keep_weights + _ALWAYS_KEPT)
    return running * _CHECKPOINTS_PER_RUN * checkpoint_bytes + with_weights * weights_bytes


def wall_s(epoch_s: float, *, epochs: int, trials: int, concurrent: int) -> float:
    """Return how long the trials take if none is stopped early, in seconds."""
    rounds = -(-trials // concurrent)  # rounded up
    return epoch_s * epochs * rounds
