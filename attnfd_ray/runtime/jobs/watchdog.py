"""Ends a process whose training step hangs, from a thread beside the run. No ray."""

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

_FACTOR = 20  # a step that takes this many median steps hangs
_MIN_STEPS = 4  # for a median; the first steps are slow
_POLL_S = 0.5
_REPORT_TIMEOUT_S = 20.0  # the disk or network that the step waits for may block the report too

OnHang = Callable[[str, Callable[[], str], float], None]


class Watchdog:
    """Watches the training steps of one run; made and entered by the thread that runs them.

    A step hangs when it takes more than `patience_s` and more than 20 times the median step of this
    run, both in seconds. Until four steps have ended, `step_s` is the median, if it is known. On a
    hang, `on_hang` is called with a line of text, a function that returns the stack of the step,
    and the median. Then `end` is called, which must not return; also if `on_hang` blocks. What is
    not a step, such as evaluation, may take any time.
    """

    def __init__(
        self,
        patience_s: float,
        on_hang: OnHang,
        *,
        step_s: float | None = None,
        end: Callable[[], None] = lambda: os._exit(1),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_s = patience_s
        self._on_hang = on_hang
        self._step_s = step_s
        self._end = end
        self._clock = clock
        self._runner = threading.get_ident()
        self._running: tuple[int | None, float] = (None, 0.0)  # (step, start); one assignment
        self._times_s: list[float] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def on_step(self, step: int | None) -> None:
        """Note that a step starts, which ends the one before; None: no step follows at once."""
        before, start_s = self._running
        now_s = self._clock()
        if before is not None and step is not None:
            self._times_s.append(now_s - start_s)
        self._running = (step, now_s)

    def check(self) -> None:
        """End the process if the running step hangs."""
        step, start_s = self._running
        taken_s = self._clock() - start_s
        if step is None or taken_s <= self._patience_s:
            return
        median_s = self._median_s()
        if median_s is not None and taken_s > _FACTOR * median_s:
            self._report_and_end(step, taken_s, median_s)

    def _median_s(self) -> float | None:
        if len(self._times_s) < _MIN_STEPS:
            return self._step_s
        return statistics.median(self._times_s)

    def _report_and_end(self, step: int, taken_s: float, median_s: float) -> None:
        deadline = threading.Timer(_REPORT_TIMEOUT_S, self._end)
        deadline.daemon = True
        deadline.start()
        frame: FrameType | None = sys._current_frames().get(self._runner)
        # without source lines: they may be on the disk that hangs
        stack = traceback.StackSummary.extract(
            reversed([*traceback.walk_stack(frame)]), lookup_lines=False
        )
        text = (
            f"step {step} was not over after {taken_s:.3g} s, the median one takes "
            f"{median_s:.2g} s ({error_location(stack)})"
        )
        self._on_hang(text, lambda: "".join(traceback.format_stack(frame)), median_s)
        deadline.cancel()
        self._end()

    def _watch(self) -> None:
        while not self._closed.wait(_POLL_S):
            self.check()
