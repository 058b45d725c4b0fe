"""Steps that hang, with a fake clock."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from attnfd_ray.runtime.jobs.watchdog import Watchdog

PATIENCE_S = 60.0


class Watched:
    """A watchdog with a fake clock, and a log of what it did."""

    def __init__(self, patience_s: float = PATIENCE_S, *, step_s: float | None = None) -> None:
        self.now_s = 100.0
        self.did: list[str] = []
        self.reports: list[tuple[str, str, float]] = []
        self.ended = threading.Event()
        self.dog = Watchdog(
            patience_s, self.on_hang, step_s=step_s, end=self.end, clock=lambda: self.now_s
        )

    def on_hang(self, text: str, stack: Callable[[], str], step_s: float) -> None:
        self.did.append("reported")
        self.reports.append((text, stack(), step_s))

    def end(self) -> None:
        self.did.append("ended")
        self.ended.set()

    def steps(self, *took_s: float, first: int = 1) -> None:
        """Take steps; the next one is then running."""
        for step, each_s in enumerate(took_s, start=first):
            self.dog.on_step(step)
            self.now_s += each_s
        self.dog.on_step(first + len(took_s))

    def wait(self, wait_s: float) -> list[str]:
        self.now_s += wait_s
        self.dog.check()
        return self.did


def test_a_step_of_more_than_20_times_the_median_is_reported_and_ends_the_process() -> None:
    watched = Watched()
    watched.steps(10.0, 4.0, 4.0, 5.0)  # the median is 4.5
    assert watched.wait(90.0) == []
    assert watched.wait(0.5) == ["reported", "ended"]
    ((text, stack, median_s),) = watched.reports
    assert text == (
        "step 5 was not over after 90.5 s, the median one takes 4.5 s "
        f"({Path(__file__).name}:{line_of('self.dog.check()')} in wait, on {socket.gethostname()})"
    )
    assert median_s == 4.5
    assert "self.dog.check()" in stack


def line_of(text: str) -> int:
    lines = [line.strip() for line in Path(__file__).read_text().splitlines()]
    return 1 + lines.index(text)


def test_short_steps_have_the_patience_that_is_set() -> None:
    watched = Watched()
    watched.steps(*[0.1] * 9)
    assert watched.wait(PATIENCE_S) == []
    assert watched.wait(0.1) == ["reported", "ended"]


def test_the_first_four_steps_may_take_any_time() -> None:
    watched = Watched()
    watched.steps(0.1, 0.1, 0.1)
    assert watched.wait(1e6) == []


def test_the_first_steps_of_a_run_that_hung_before_are_compared_with_its_steps_then() -> None:
    watched = Watched(step_s=5.0)
    watched.steps()
    assert watched.wait(100.0) == []
    assert watched.wait(1.0) == ["reported", "ended"]
    assert watched.reports[0][2] == 5.0


def test_the_time_between_two_epochs_is_not_a_step() -> None:
    watched = Watched()
    watched.steps(*[1.0] * 5)
    watched.dog.on_step(None)
    assert watched.wait(1e6) == []
    watched.steps(1.0, first=6)
    assert watched.wait(PATIENCE_S + 1) == ["reported", "ended"]
    assert watched.reports[0][2] == 1.0, "the time between does not count"


def test_infinite_patience_ends_nothing() -> None:
    watched = Watched(float("inf"))
    watched.steps(*[1.0] * 5)
    assert watched.wait(1e9) == []


@pytest.mark.timeout(30)
def test_the_process_ends_although_the_report_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnfd_ray.runtime.jobs.watchdog._REPORT_TIMEOUT_S", 0.01)
    watched = Watched()
    reported = threading.Event()
    monkeypatch.setattr(watched.dog, "_on_hang", lambda *_: reported.wait(20))
    watched.steps(*[1.0] * 5)
    watched.now_s += PATIENCE_S + 1
    thread = threading.Thread(target=watched.dog.check)
    thread.start()
    assert watched.ended.wait(10)
    reported.set()
    thread.join()


@pytest.mark.timeout(30)
def test_it_watches_by_itself_from_its_entry_to_its_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnfd_ray.runtime.jobs.watchdog._POLL_S", 0.001)
    watched = Watched()
    with watched.dog:
        watched.steps(*[1.0] * 5)
        watched.now_s += PATIENCE_S + 1
        assert watched.ended.wait(20)
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}
