"""Hands jobs to worker groups and what they say back to whoever asked. Plain asyncio; Ray makes an
actor of it.

A client submits a job and pulls events until one is `done` or `failed`; a group takes a job and
pushes events. The two move in step: a push returns only when the client came back for the next
event, or cancelled the job. So a trial that should stop after an epoch does not begin another, and
one trial at a time is the same search every time.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from attnfd_ray.runtime.jobs.failure_policy import POLICIES
from attnfd_ray.runtime.jobs.messages import INTERRUPTED, Event, Job


@dataclass
class _JobState:
    """One job between its client and its group."""

    job: Job
    event: Event | None = None
    cancelled: str | None = None
    hung: str | None = None
    begun: bool = False
    reached: int = 0
    losses: Counter[str] = field(default_factory=Counter)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def lost(self, nodes: Mapping[str, str], *, with_node: bool) -> Event | None:
        """Note that the group of the job died; return how the job ends by that, or None where it is
        begun again.
        """
        kind, text = "NODE_LOST" if with_node else "WORKER_LOST", self.hung
        if text:
            kind, self.hung = "TIMEOUT", None
        self.losses[kind] += 1
        if POLICIES[kind].retries(self.losses[kind]):
            return None
        logs = f"; their logs: {', '.join(sorted(nodes.values()))}" if nodes else ""
        text = (
            text or f"its workers died {self.losses[kind]} times without finishing an epoch{logs}"
        )
        return Event(kind="failed", failure_kind=kind, failure_text=text)


class Broker:
    """Jobs, groups and events; every method may be called by many at once.

    `alive` returns the ids of the nodes that are there; a group says on which it runs, and where
    each keeps its logs.
    """

    def __init__(self, groups: int, alive: Callable[[], set[str]] = set) -> None:
        self._groups_left = groups
        self._alive = alive
        self._nodes: dict[int, Mapping[str, str]] = {}
        self._waiting: deque[str] = deque()
        self._desks: dict[str, _JobState] = {}
        self._held: dict[int, str] = {}
        self._closed = False
        self._interrupted = False
        self._broken: str | None = None
        self._work = asyncio.Condition()

    # What a client calls.

    async def submit(self, job: Job) -> None:
        """Queue a job; one that is known already (its client died and is back) is left as it is."""
        async with self._work:
            if job.trial_id in self._desks:
                return
            self._desks[job.trial_id] = _JobState(job)
            self._waiting.append(job.trial_id)
            self._work.notify_all()

    async def pull(self, trial_id: str, *, seen: int) -> Event:
        """Wait for the job's next event. `seen` is the last epoch the client has dealt with, 0 at
        first.
        """
        desk = self._desks[trial_id]
        async with desk.changed:
            while True:
                if (
                    desk.event
                    and desk.event.kind == "epoch"
                    and desk.event.metrics["epoch"] <= seen
                ):
                    desk.event = None
                    desk.changed.notify_all()
                if desk.event:
                    return desk.event
                if self._interrupted and trial_id not in self._held.values():
                    return Event.interrupted()
                if self._broken:
                    return Event(
                        kind="failed", failure_kind="WORKER_LOST", failure_text=self._broken
                    )
                await desk.changed.wait()

    async def cancel(self, trial_id: str, reason: str) -> None:
        """Stop a job after the epoch it is in; a job that is over, or unknown, stays as it is."""
        desk = self._desks.get(trial_id)
        if desk is None:
            return
        async with desk.changed:
            if desk.cancelled is None:
                desk.cancelled = reason
            desk.changed.notify_all()

    async def interrupt(self) -> None:
        """End every job after the epoch it is in; those that no group has begun, or will, end at
        once.
        """
        self._interrupted = True
        await self.close()
        await self._wake()

    async def close(self) -> None:
        """Send every group home once it is idle."""
        async with self._work:
            self._closed = True
            self._work.notify_all()

    # What a group calls.

    async def take(
        self, group: int, *, patience_s: float, nodes: Mapping[str, str] = MappingProxyType({})
    ) -> Job | Literal["idle", "over"]:
        """Return the next job, "idle" when there was none for `patience_s`, "over" when there will
        be none.

        A group that asks while it holds a job has been rebuilt after a loss, and gets the same job
        again, as often as the policy of that failure has it.
        """
        before, self._nodes[group] = self._nodes.get(group, {}), nodes
        if (held := self._held.get(group)) is not None:
            desk = self._desks[held]
            if self._interrupted:
                await self.push(group, held, Event.interrupted())
            elif (end := desk.lost(before, with_node=not before.keys() <= self._alive())) is None:
                return desk.job
            else:
                await self.push(group, held, end)
        async with self._work:
            try:
                await asyncio.wait_for(
                    self._work.wait_for(lambda: self._waiting or self._closed), patience_s
                )
            except TimeoutError:
                return "idle"
            while self._waiting and not self._interrupted:
                desk = self._desks[self._waiting.popleft()]
                if desk.cancelled is None or desk.begun:  # that a begun one stops has to be written
                    desk.begun = True
                    self._held[group] = desk.job.trial_id
                    return desk.job
            return "over" if self._closed else "idle"

    async def push(self, group: int, trial_id: str, event: Event) -> str | None:
        """Say what happened; return why the job should stop now (INTERRUPTED: for today), or None
        to go on.
        """
        desk = self._desks[trial_id]
        if event.kind != "epoch" or event.metrics["epoch"] > desk.reached:
            # but not for an epoch that was heard before: it may be lost each time on its way to the
            # disk
            desk.losses.clear()
            desk.reached = event.metrics.get("epoch", desk.reached)
        async with desk.changed:
            desk.event = event
            desk.changed.notify_all()
            if event.kind != "epoch":
                if self._held.get(group) == trial_id:
                    del self._held[group]
                return None
            await desk.changed.wait_for(lambda: desk.event is None or desk.cancelled is not None)
            # an epoch trained again after a loss was gone on from: what stops the job was decided
            # later
            cancelled = desk.cancelled if event.metrics["epoch"] >= desk.reached else None
            return cancelled or (INTERRUPTED if self._interrupted else None)

    async def report_hang(self, group: int, trial_id: str, text: str, *, step_s: float) -> None:
        """Note that the group is about to die of a step that hangs, and how long one takes
        otherwise.
        """
        if self._held.get(group) == trial_id:
            desk = self._desks[trial_id]
            desk.hung, desk.job = text, replace(desk.job, step_s=step_s)

    async def lost(self, group: int, reason: str) -> None:
        """Note that a group will not come back: another goes on with its job; without any left
        every job has failed.
        """
        self._groups_left -= 1
        trial_id = self._held.pop(group, None)
        if trial_id is not None and self._interrupted:
            await self.push(group, trial_id, Event.interrupted())
        elif trial_id is not None and self._groups_left > 0:
            async with self._work:
                self._waiting.appendleft(trial_id)
                self._work.notify_all()
        if self._groups_left == 0 and not self._closed:
            self._broken = reason
            await self._wake()

    async def broken(self) -> str | None:
        """Return why no group is left, or None."""
        return self._broken

    async def _wake(self) -> None:
        """Have everybody who waits for an event look again."""
        for desk in list(self._desks.values()):  # others may come meanwhile
            async with desk.changed:
                desk.changed.notify_all()
