"""How much disk and time a search will take at most, by arithmetic on what is known before it
starts.
"""

from __future__ import annotations

from dataclasses import dataclass

_BYTES = 4  # of a number in float32
_STATES = 2  # a checkpoint holds every parameter and its momentum
_WRITING = 2  # a new checkpoint stands beside the one it replaces until it is whole
_WEIGHTS = 2  # best and last
_NOT_DRAWN = (
    2  # the best baseline and the file as written keep their weights, whatever they are worth
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many parameters a network has, and how many are learned with it: its own, gates and
    connectors.
    """

    student: int
    learned: int


def disk_bytes(sizes: Sizes, *, trials: int, concurrent: int, keep_weights: int | None) -> int:
    """Return what the runs hold in the store at most, in bytes: checkpoints of those that run, and
    weights.

    `keep_weights` leaders keep theirs, None: all do; see `runtime.disk`. Trials that fail are not
    foreseen.
    """
    checkpoint, weights = _STATES * _BYTES * sizes.learned, _WEIGHTS * _BYTES * sizes.student
    running = min(trials, concurrent)
    having = trials if keep_weights is None else min(trials, running + keep_weights + _NOT_DRAWN)
    return running * _WRITING * checkpoint + having * weights


def wall_s(epoch_s: float, *, epochs: int, trials: int, concurrent: int) -> float:
    """Return how long the trials take if none is stopped early, in seconds."""
    return epoch_s * epochs * -(-trials // concurrent)
