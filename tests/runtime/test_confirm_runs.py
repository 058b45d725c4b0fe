"""Which runs a confirmation has, and how it handles those that fail. No Ray is started."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import ray

from attnfd_ray.cli.progress_text import TextProgress
from attnfd_ray.config.overrides import baseline_of, config_hash, with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import DataError, RunFailed, StoreError
from attnfd_ray.runtime import confirm
from attnfd_ray.runtime.jobs.failure_policy import FailureBudget
from attnfd_ray.runtime.jobs.messages import Event, Job
from attnfd_ray.runtime.session import RunContext
from attnfd_ray.store.rows import TrialRow
from attnfd_ray.store.store import Store
from attnfd_ray.terms import BASELINES, Role, TrialState

Settings = Callable[[], ExperimentSettings]
DONE = Event(
    kind="done", metrics={"best_miou": 0.5, "best_epoch": 1, "epochs_total": 1, "epoch": 1}
)


def context_of(settings: ExperimentSettings) -> RunContext:
    return RunContext(
        settings=settings,
        store=Store.open(settings.store, create=True),
        run_id="tiny.search1.confirm",
        search_id="tiny.search1",
    )


def jobs_of(
    settings: ExperimentSettings, rows: Sequence[dict[str, Any]], *, top: int, seeds: int
) -> list[Job]:
    context = context_of(settings)
    runs = confirm.planned_runs(context, rows, top=top, seeds=seeds)
    return [run.job(context) for run in runs]


def row(settings: ExperimentSettings, role: Role, score: float, **values: Any) -> dict[str, Any]:
    """Return a complete trial of the search, as in the store."""
    start = baseline_of(settings) if role in BASELINES else settings
    assert start is not None
    trial = TrialRow(
        experiment="tiny",
        search_id="tiny.search1",
        trial_id=f"{role}-{score}",
        seed=values.get("train.seed", 0),
        method="attnfd",
        role=role,
        state=TrialState.COMPLETE,
        best_val_miou=score,
        epochs_done=4,
        epochs_total=4,
        config_hash=config_hash(with_values(start, values)),
    )
    return trial.to_dict() | {"searched_json": json.dumps(values)}


@pytest.fixture
def jobs(settings: Settings) -> Callable[..., list[Job]]:
    """Return the runs of a search whose best is at loss weight 3 and seed 5."""
    made = settings()
    rows = [
        row(made, "baseline", 0.5),
        row(made, "as_written", 0.6),
        row(made, "trial", 0.7, **{"method.loss_weight": 3.0, "train.seed": 5}),
    ]
    return lambda top, seeds: jobs_of(made, rows, top=top, seeds=seeds)


def test_every_config_runs_on_the_same_fresh_seeds_seed_after_seed(
    jobs: Callable[..., list[Job]],
) -> None:
    found = jobs(top=1, seeds=2)
    assert [(job.settings.method.loss_weight, job.settings.train.seed) for job in found] == [  # type: ignore[attr-defined]
        (0.0, 1_000_001),
        (3.0, 1_000_001),
        (0.0, 1_000_002),
        (3.0, 1_000_002),
    ]
    assert [job.searched for job in found[:2]] == [{}, {"method.loss_weight": 3.0}]
    assert {(job.role, job.search_id) for job in found} == {("confirm", "tiny.search1")}


def test_the_best_baseline_runs_again_with_its_own_values(settings: Settings) -> None:
    made = settings()
    rows = [
        row(made, "baseline", 0.5),
        row(made, "baseline_trial", 0.55, **{"optim.lr": 0.1}),
        row(made, "baseline_trial", 0.53, **{"optim.lr": 0.2}),
        row(made, "trial", 0.7, **{"method.loss_weight": 3.0}),
    ]
    alone, leader = jobs_of(made, rows, top=9, seeds=1)
    assert (alone.settings.method.loss_weight, alone.settings.optim.lr) == (0.0, 0.1)  # type: ignore[attr-defined]
    assert (leader.settings.method.loss_weight, leader.settings.optim.lr) == (3.0, 0.02)  # type: ignore[attr-defined]
    assert (alone.searched, alone.settings.train.seed) == ({"optim.lr": 0.1}, 1_000_001)


def test_more_leaders_or_seeds_add_to_the_same_runs(jobs: Callable[..., list[Job]]) -> None:
    few = {job.trial_id: job for job in jobs(top=1, seeds=2)}
    more = {job.trial_id: job for job in jobs(top=2, seeds=3)}
    assert (len(few), len(more)) == (4, 9)
    assert few.items() <= more.items()


class FakeGroups:
    """Groups, broker and Ray in one: after one epoch, each job ends with its event in `ends`."""

    count = 2

    def __init__(self, ends: dict[str, Event], broken: str | None = None) -> None:
        self.ends = ends
        self.running = 0
        self.max_running = 0
        self.broker = self
        self.submit = Remote(self._submit)
        self.pull = Remote(self._pull)
        self.broken = Remote(lambda: broken)

    def _submit(self, job: Job) -> None:
        self.running += 1
        self.max_running = max(self.max_running, self.running)

    def _pull(self, trial_id: str, *, last_epoch: int) -> Reference:
        if last_epoch:
            return Reference(self.ends[trial_id])
        return Reference(Event(kind="epoch", metrics={"epoch": 1, "epochs_total": 4}))

    def wait(self, references: Sequence[Reference]) -> tuple[list[Reference], list[Reference]]:
        return list(references[:1]), list(references[1:])

    def get(self, found: Any) -> Any:
        if isinstance(found, Reference):
            self.running -= found.event.kind != "epoch"
            return found.event
        return found


class Reference:
    def __init__(self, event: Event) -> None:
        self.event = event


class Remote:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function


class KeptLines(TextProgress):
    """Keeps the lines; there are none for epochs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        super().__init__(self.lines.append, every_epoch=False)


Trainer = Callable[..., tuple[FakeGroups, list[str]]]


@pytest.fixture
def run(
    jobs: Callable[..., list[Job]], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Trainer:
    """Run four jobs, some of which fail; each is RUNNING in the store."""
    store = Store.open(settings().store, create=True)
    todo = jobs(top=1, seeds=2)
    for job in todo:
        store.append_trial(
            TrialRow(
                experiment="tiny",
                trial_id=job.trial_id,
                seed=1,
                method="x",
                role="confirm",
                state=TrialState.RUNNING,
            )
        )

    def run(ends: dict[int, Event], broken: str | None = None) -> tuple[FakeGroups, list[str]]:
        groups = FakeGroups(
            {job.trial_id: ends.get(index, DONE) for index, job in enumerate(todo)}, broken
        )
        monkeypatch.setattr(ray, "wait", groups.wait)
        monkeypatch.setattr(ray, "get", groups.get)
        callback = KeptLines()
        budget = FailureBudget(settings().tune.max_failures, again="again")
        confirm.run_all(todo, groups, store, callback, budget)  # type: ignore[arg-type]
        return groups, callback.lines

    return run


def failed(kind: str) -> Event:
    return Event(kind="failed", failure_kind=kind, failure_text="on purpose")


def states(settings: ExperimentSettings) -> list[str]:
    rows = Store.open(settings.store, create=False).trials(columns=["state"]).to_pylist()
    return sorted(row["state"] for row in rows)


def test_as_many_run_at_once_as_there_are_groups(run: Trainer) -> None:
    groups, lines = run({})
    assert (groups.max_running, groups.running, len(lines)) == (2, 0, 4)


def test_if_a_run_fails_the_others_continue(run: Trainer, settings: Settings) -> None:
    _, lines = run({0: failed("NAN"), 1: failed("USER_CODE")})
    assert [line.split()[1] for line in lines] == ["INFEASIBLE", "FAILED", "COMPLETE", "COMPLETE"]
    # a worker writes the ends of runs that complete
    assert states(settings()) == ["FAILED", "INFEASIBLE", "RUNNING", "RUNNING"]


def test_a_store_that_cannot_be_written_ends_all(run: Trainer) -> None:
    with pytest.raises(StoreError, match="on purpose"):
        run({0: failed("STORE")})


def test_too_many_failures_end_all_and_the_other_runs_stay_running(
    run: Trainer, settings: Settings
) -> None:
    with pytest.raises(DataError, match="on purpose") as caught:
        run(dict.fromkeys(range(4), failed("DATA")))
    assert len(caught.value.problems) == 2
    assert caught.value.problems[1].startswith(
        "stopped: 3 of this command's trials failed (3 DATA)"
    )
    assert states(settings()) == ["FAILED"] * 3 + ["RUNNING"]


def test_without_groups_the_runs_stay_running(run: Trainer, settings: Settings) -> None:
    with pytest.raises(
        RunFailed, match="confirm stopped: no node is left; run the same command again to resume"
    ):
        run({0: failed("WORKER_LOST")}, broken="no node is left")
    assert set(states(settings())) == {"RUNNING"}


def test_when_every_run_fails_the_command_does(run: Trainer) -> None:
    with pytest.raises(RunFailed, match="no run was completed"):
        run(dict.fromkeys(range(4), failed("NAN")))
