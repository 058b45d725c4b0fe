"""The driver's side of a job: its messages, its events and the record of its failure. No Ray."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import ray

from attnfd_ray.config.overrides import with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import RunFailed
from attnfd_ray.runtime.jobs.client import events, record_failure, run_job
from attnfd_ray.runtime.jobs.failure_policy import POLICIES
from attnfd_ray.runtime.jobs.messages import Event, Job
from attnfd_ray.runtime.session import RunContext
from attnfd_ray.store.rows import TrialRow
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState

DONE = Event(kind="done", metrics={"epoch": 2})


class Remote:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function


class FakeBroker:
    """Returns one event after the other, and keeps the calls."""

    def __init__(self, *found: Event) -> None:
        self.calls: list[Any] = []
        self._found = iter(found)
        self.submit = Remote(self.calls.append)
        self.pull = Remote(self._pull)

    def _pull(self, trial_id: str, *, last_epoch: int) -> Event:
        self.calls.append((trial_id, last_epoch))
        return next(self._found)


@pytest.fixture
def context(
    settings: Callable[[], ExperimentSettings], monkeypatch: pytest.MonkeyPatch
) -> RunContext:
    monkeypatch.setattr(ray, "get", lambda value: value)
    store = Store.open(settings().store, create=True)
    return RunContext(settings=settings(), store=store, run_id="s", search_id="s", git_commit="g")


def epoch(number: int) -> Event:
    return Event(kind="epoch", metrics={"epoch": number})


def append(store: Store, job: Job, state: TrialState) -> None:
    row = TrialRow(
        experiment="tiny",
        trial_id=job.trial_id,
        seed=1,
        method="attnfd",
        role="trial",
        state=state,
        git_commit=job.git_commit,
    )
    store.append_trial(row)


def test_a_context_makes_whole_jobs(context: RunContext) -> None:
    taught = replace(context, teacher_file="teacher.safetensors", teacher_hash="abc")
    other = with_values(context.settings, {"optim.lr": 0.5})
    job = taught.job("s-0002", "trial", other, {"optim.lr": 0.5})
    assert job == Job(
        kind="train",
        trial_id="s-0002",
        role="trial",
        settings_json=other.model_dump_json(),
        search_id="s",
        searched={"optim.lr": 0.5},
        teacher_file="teacher.safetensors",
        teacher_hash="abc",
        git_commit="g",
    )
    assert context.job("s-0001", "as_written").settings == context.settings


def test_the_settings_of_a_job_are_parsed_once_and_not_sent(context: RunContext) -> None:
    job = context.job("s-0001", "trial")
    before = pickle.dumps(job)
    assert job.settings is job.settings
    assert pickle.dumps(job) == before
    received = pickle.loads(before)
    assert received == job
    assert received.settings == context.settings
    other = with_values(context.settings, {"optim.lr": 0.5})
    changed = replace(job, settings_json=other.model_dump_json())
    assert changed.settings.optim.lr == 0.5


def test_events_are_pulled_one_at_a_time_up_to_the_end(context: RunContext) -> None:
    broker, job = FakeBroker(epoch(1), epoch(2), DONE), context.job("s-0001", "trial")
    found = events(broker, job)
    assert next(found) == epoch(1)
    assert broker.calls == [job, ("s-0001", 0)], "the group waits until the next event is pulled"
    assert list(found) == [epoch(2), DONE]
    assert broker.calls[2:] == [("s-0001", 1), ("s-0001", 2)]


def test_a_job_that_is_run_returns_its_last_metrics(context: RunContext) -> None:
    epochs: list[dict[str, Any]] = []
    job = context.job("s-0001", "trial")
    broker = FakeBroker(epoch(1), epoch(2), DONE)
    assert run_job(broker, job, context.store, epochs.append) == DONE.metrics
    assert epochs == [{"epoch": 1}, {"epoch": 2}]


def test_a_job_that_fails_is_recorded_and_raised(context: RunContext) -> None:
    job = context.job("s-0001", "trial")
    append(context.store, job, TrialState.RUNNING)
    broker = FakeBroker(epoch(1), Event.failed("USER_CODE", "KeyError"))
    with pytest.raises(RunFailed, match="s-0001: USER_CODE: KeyError"):
        run_job(broker, job, context.store, lambda _: None)
    row = context.store.trial("s-0001")
    assert row is not None
    assert (row["state"], row["failure_kind"], row["failure_text"], row["git_commit"]) == (
        "FAILED",
        "USER_CODE",
        "KeyError",
        "g",
    )


@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_a_failure_is_recorded_with_the_state_of_its_policy(context: RunContext, kind: str) -> None:
    job = context.job("s-0001", "trial")
    append(context.store, job, TrialState.RUNNING)
    assert record_failure(context.store, job, kind, "text") == POLICIES[kind].state
    row = context.store.trial("s-0001")
    assert row is not None
    assert row["state"] == POLICIES[kind].state


def test_a_failure_does_not_overwrite_an_end_that_a_worker_has_written(context: RunContext) -> None:
    job = context.job("s-0001", "trial")
    append(context.store, job, TrialState.COMPLETE)
    record_failure(context.store, job, "NAN", "too late")
    row = context.store.trial("s-0001")
    assert row is not None
    assert row["state"] == "COMPLETE"
