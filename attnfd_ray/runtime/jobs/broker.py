"""The broker between clients and worker groups: jobs in, events out.

Plain asyncio; Ray makes an actor of it. A client submits a job and pulls events, up to one that is
`done` or `failed`. A group takes a job and pushes events. The two run in lockstep: a push returns
only when the client asks for the next event, or cancels the job. So a trial that is stopped after
an epoch does not start another one, and a search with one trial at a time is reproducible.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from attnfd_ray.runtime.jobs.failure_policy import POLICIES
from attnfd_ray.runtime.jobs.messages import Event, Job
from attnfd_ray.terms import FailureKind

Logs = Mapping[str, str]  # node id -> where Ray's logs of that node are


@dataclass
class _JobState:
    """A job, and what has happened to it so far.

    `event` is the one that the client has not asked to go past. `losses` counts the failures in a
    row by kind.
    """

    job: Job
    event: Event | None = None
    cancel_reason: str | None = None
    hang_text: str | None = None
    was_taken: bool = False
    last_epoch: int = 0
    losses: Counter[str] = field(default_factory=Counter)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def add_loss(self, logs: Logs, *, node_lost: bool) -> Event | None:
        """Count a death of the job's group; return the job's end, or None to start it again."""
        kind = FailureKind.WORKER_LOST
        if self.hang_text:
            kind = FailureKind.TIMEOUT
        elif node_lost:
            kind = FailureKind.NODE_LOST
        text = self.hang_text
        self.hang_text = None
        self.losses[kind] += 1
        if POLICIES[kind].retries(self.losses[kind]):
            return None
        return Event.failed(kind, text or self._loss_text(kind, logs))

    def _loss_text(self, kind: str, logs: Logs) -> str:
        text = f"its workers died {self.losses[kind]} times without finishing an epoch"
        if logs:
            text += f"; their logs: {', '.join(sorted(logs.values()))}"
        return text

    def add_progress(self, event: Event) -> None:
        """Forget the losses, unless this epoch was reported before.

        The group may lose an epoch that it reports again and again before its checkpoint is saved.
        """
        if event.kind != "epoch":
            self.losses.clear()
        elif event.metrics["epoch"] > self.last_epoch:
            self.losses.clear()
            self.last_epoch = event.metrics["epoch"]


class Broker:
    """Jobs, groups and events. All methods may be called concurrently.

    `groups` is the number of worker groups. `alive` returns the ids of the nodes that are alive; a
    group reports on which nodes it runs, and where their logs are.
    """

    def __init__(self, groups: int, alive: Callable[[], set[str]] = set) -> None:
        self._groups_left = groups
        self._alive = alive
        self._logs: dict[int, Logs] = {}
        self._queue: deque[str] = deque()
        self._states: dict[str, _JobState] = {}
        self._taken: dict[int, str] = {}  # group -> trial id
        self._closed = False
        self._interrupted = False
        self._broken: str | None = None
        self._work = asyncio.Condition()

    # Called by clients.

    async def submit(self, job: Job) -> None:
        """Queue a job; does nothing for a known job, whose client was restarted."""
        async with self._work:
            if job.trial_id in self._states:
                return
            self._states[job.trial_id] = _JobState(job)
            self._queue.append(job.trial_id)
            self._work.notify_all()

    async def pull(self, trial_id: str, *, last_epoch: int) -> Event:
        """Wait for the job's next event; `last_epoch` is the last one that the client has, or 0."""
        state = self._states[trial_id]
        async with state.changed:
            while True:
                event = state.event
                if event and event.kind == "epoch" and event.metrics["epoch"] <= last_epoch:
                    state.event = None  # which lets the push of that epoch return
                    state.changed.notify_all()
                elif event:
                    return event
                if self._interrupted and trial_id not in self._taken.values():
                    return Event.interrupted()
                if self._broken:
                    return Event.failed(FailureKind.WORKER_LOST, self._broken)
                await state.changed.wait()

    async def cancel(self, trial_id: str, reason: str) -> None:
        """Stop a job after its running epoch; does nothing for a job that is over or unknown."""
        state = self._states.get(trial_id)
        if state is None:
            return
        async with state.changed:
            if state.cancel_reason is None:
                state.cancel_reason = reason
            state.changed.notify_all()

    async def interrupt(self) -> None:
        """End every job after its running epoch, and jobs that no group has taken at once."""
        self._interrupted = True
        await self.close()
        await self._notify_clients()

    async def close(self) -> None:
        """Have every group end once it is idle."""
        async with self._work:
            self._closed = True
            self._work.notify_all()

    # Called by groups.

    async def take(
        self, group: int, *, timeout_s: float, logs: Logs = MappingProxyType({})
    ) -> Job | Literal["idle", "over"]:
        """Return the next job; "idle" if there was none in `timeout_s`, "over" if none will come.

        A group that asks while it has a job was rebuilt after a loss. It gets the same job again,
        as often as the policy of that failure allows.
        """
        logs_before = self._logs.get(group, {})
        self._logs[group] = logs
        if group in self._taken:
            job = await self._after_loss(group, logs_before)
            if job is not None:
                return job
        async with self._work:
            try:
                await asyncio.wait_for(
                    self._work.wait_for(lambda: self._queue or self._closed), timeout_s
                )
            except TimeoutError:
                return "idle"
            return self._next_job(group) or self._no_job()

    async def _after_loss(self, group: int, logs: Logs) -> Job | None:
        """Return the job that a rebuilt group resumes, or None where the job has ended."""
        trial_id = self._taken[group]
        state = self._states[trial_id]
        end: Event | None
        if self._interrupted:
            end = Event.interrupted()
        else:
            end = state.add_loss(logs, node_lost=not logs.keys() <= self._alive())
        if end is None:
            return state.job
        await self.push(group, trial_id, end)
        return None

    def _next_job(self, group: int) -> Job | None:
        """Return the first queued job that is not cancelled, and note that the group has it."""
        while self._queue and not self._interrupted:
            state = self._states[self._queue.popleft()]
            # a cancelled job that a group had taken is handed out, to have its end written
            if state.cancel_reason is None or state.was_taken:
                state.was_taken = True
                self._taken[group] = state.job.trial_id
                return state.job
        return None

    def _no_job(self) -> Literal["idle", "over"]:
        if self._closed:
            return "over"
        return "idle"

    async def push(self, group: int, trial_id: str, event: Event) -> str | None:
        """Report an event; return why the job must stop now, or None to continue.

        The reason FailureKind.INTERRUPTED means that the job is resumed later.
        """
        state = self._states[trial_id]
        state.add_progress(event)
        async with state.changed:
            state.event = event
            state.changed.notify_all()
            if event.kind != "epoch":
                if self._taken.get(group) == trial_id:
                    del self._taken[group]
                return None
            await state.changed.wait_for(
                lambda: state.event is None or state.cancel_reason is not None
            )
            # an earlier epoch, trained again after a loss, was continued from: the decision to stop
            # came at a later one
            if state.cancel_reason and event.metrics["epoch"] >= state.last_epoch:
                return state.cancel_reason
            if self._interrupted:
                return FailureKind.INTERRUPTED
            return None

    async def report_hang(self, group: int, trial_id: str, text: str, *, step_s: float) -> None:
        """Note that the group is about to die of a step that hangs, and the median step time."""
        if self._taken.get(group) == trial_id:
            state = self._states[trial_id]
            state.hang_text = text
            state.job = replace(state.job, step_s=step_s)

    async def report_loss(self, group: int, reason: str) -> None:
        """Note that a group will not be rebuilt: another one resumes its job.

        If no group is left, all jobs have failed.
        """
        self._groups_left -= 1
        trial_id = self._taken.pop(group, None)
        if trial_id is not None and self._interrupted:
            await self.push(group, trial_id, Event.interrupted())
        elif trial_id is not None and self._groups_left > 0:
            async with self._work:
                self._queue.appendleft(trial_id)
                self._work.notify_all()
        if self._groups_left == 0 and not self._closed:
            self._broken = reason
            await self._notify_clients()

    async def broken(self) -> str | None:
        """Return why no group is left, or None."""
        return self._broken

    async def _notify_clients(self) -> None:
        """Have all clients that wait for an event check again."""
        for state in list(self._states.values()):  # jobs may be submitted meanwhile
            async with state.changed:
                state.changed.notify_all()
