"""Ends a process whose training step hangs, since nothing else can end a step: a thread beside the
run. No ray.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

from attnfd_ray.runtime.jobs.failures import error_location

_FACTOR = 20  # times the median, and a step hangs
_ENOUGH_STEPS = 4  # before them there is no median to speak of; the first ones warm up
_POLL_S = 0.5
_LAST_WORDS_S = 20.0  # the disk or the network that a step waits for may keep them from being said


class Watchdog:
    """Watches the training steps of one run, made and entered by the thread that takes them.

    A step hangs when it takes more than `patience_s` and more than 20 times the median step of this
    run; until that has taken four, of `step_s`, where it is known. Then `late` is called, with what
    to say of it, the stack of the step and the median, and then `end`, which must not return; soon
    in any case. What is no step, as scoring, may take any time.
    """

    def __init__(
        self,
        patience_s: float,
        late: Callable[[str, Callable[[], str], float], None],
        *,
        step_s: float | None = None,
        end: Callable[[], None] = lambda: os._exit(1),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_s, self._late, self._step_s, self._end, self._clock = (
            patience_s,
            late,
            step_s,
            end,
            clock,
        )
        self._runner = threading.get_ident()
        self._under_way: tuple[int | None, float] = (None, 0.0)
        self._took_s: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def on_step(self, step: int | None) -> None:
        """Hear that a step begins, and with it that the one before is over; None: no other follows
        at once.
        """
        (before, began_s), now_s = self._under_way, self._clock()
        if before is not None and step is not None:
            self._took_s.append(now_s - began_s)
        self._under_way = (step, now_s)

    def check(self) -> None:
        """End the process if the step under way hangs."""
        step, began_s = self._under_way
        took_s = self._clock() - began_s
        if step is None or took_s <= self._patience_s:
            return
        median_s = (
            statistics.median(self._took_s) if len(self._took_s) >= _ENOUGH_STEPS else self._step_s
        )
        if median_s is not None and took_s > _FACTOR * median_s:
            at_last = threading.Timer(_LAST_WORDS_S, self._end)
            at_last.daemon = True
            at_last.start()
            frame: FrameType | None = sys._current_frames().get(self._runner)
            # the lines of the source may be on the disk that hangs
            where = error_location(
                traceback.StackSummary.extract(
                    reversed([*traceback.walk_stack(frame)]), lookup_lines=False
                )
            )
            text = f"step {step} was not over after {took_s:.3g} s, the median one takes {median_s:.2g} s ({where})"
            self._late(text, lambda: "".join(traceback.format_stack(frame)), median_s)
            at_last.cancel()
            self._end()

    def _watch(self) -> None:
        while not self._over.wait(_POLL_S):
            self.check()
