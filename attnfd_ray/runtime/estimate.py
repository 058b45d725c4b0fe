"""How much disk and time a search will take at most, by arithmetic on what is known before it starts."""

from __future__ import annotations

from dataclasses import dataclass

_BYTES = 4  # of a number in float32
_STATES = 2  # a checkpoint holds every parameter and its momentum
_WRITING = 2  # a new checkpoint stands beside the one it replaces until it is whole
_WEIGHTS = 2  # best and last


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many parameters a network has, and how many are learned with it: its own, gates and connectors."""

    student: int
    learned: int


def disk_bytes(sizes: Sizes, *, trials: int, concurrent: int) -> int:
    """Return what the runs leave in the store, and hold while they write: checkpoints and weights, in bytes."""
    checkpoint, weights = _STATES * _BYTES * sizes.learned, _WEIGHTS * _BYTES * sizes.student
    return trials * (checkpoint + weights) + min(trials, concurrent) * (_WRITING - 1) * checkpoint


def wall_s(epoch_s: float, *, epochs: int, trials: int, concurrent: int) -> float:
    """Return how long the trials take if none is stopped early, in seconds."""
    return epoch_s * epochs * -(-trials // concurrent)
