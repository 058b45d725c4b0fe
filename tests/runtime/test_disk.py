"""What a search leaves on the disk: never more than estimated, and all that is still needed."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import random
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from attnfd_ray.analysis import ranking
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.analysis.trials import line
from attnfd_ray.config.schema import ExperimentSettings, ModelSettings
from attnfd_ray.errors import StoreError
from attnfd_ray.models.files import save_model
from attnfd_ray.runtime.cluster.estimate import Sizes, disk_bytes
from attnfd_ray.runtime.files.claims import claim_run_id, experiment_lock
from attnfd_ray.runtime.files.retention import delete_expired, run_directory, trials_keeping_weights
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.runtime.jobs.trial_writer import TrialWriter
from attnfd_ray.runtime.session import RunContext
from attnfd_ray.runtime.tuner import _Bridge, job_of
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.store.rows import TrialRow
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState
from attnfd_ray.train import checkpoint
from attnfd_ray.train.records import EpochRecord, Outcome

Make = Callable[[], ExperimentSettings]

CONCURRENT, EPOCHS, KEEP = 3, 3, 5
NUM_PARAMS = 128 * 128
SEARCH = "tiny.search1"


class Silent:
    """A callback that does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


# ---- a search of 50 trials


class FakeSearch:
    """Runs a real plan's trials, several at once: all that worker and driver do but training."""

    def __init__(self, settings: ExperimentSettings) -> None:
        self.lock = threading.Lock()
        self.store = Store.open(settings.store, create=True)
        context = RunContext(settings=settings, store=self.store, run_id=SEARCH, search_id=SEARCH)
        groups: Any = None  # used only after a loss
        self.bridge = _Bridge(SearchPlan(settings, search_id=SEARCH), groups, context, Silent())

    def run(self) -> None:
        with ThreadPoolExecutor(CONCURRENT) as pool:
            for group in [pool.submit(self._group) for _ in range(CONCURRENT)]:
                group.result()

    def _group(self) -> None:
        while True:
            with self.lock:
                suggestion = self.bridge.plan.next()
                if suggestion is None:
                    return
                job = job_of(suggestion, self.bridge.context)
                self.bridge.jobs[job.trial_id] = job
            metrics = self._train(job, random.Random(suggestion.index))
            with self.lock:
                self.bridge.complete(job.trial_id, metrics, error=False)

    def _train(self, job: Job, rng: random.Random) -> dict[str, Any]:
        writer = TrialWriter(job, self.store, torch.device("cpu"))
        network = nn.Linear(128, 128, bias=False)
        if rng.random() < 0.1:
            checkpoint.save(
                job.directory / "checkpoints", epoch=1, state=state_of(network), record={}
            )
            return {"failure_kind": "NAN", "failure_text": "the loss is nan"}
        epochs = 2
        if rng.random() < 0.7 or job.role != "trial":
            epochs = EPOCHS
        last = None
        best = -1.0
        for epoch in range(1, epochs + 1):
            miou = rng.random()
            best = max(best, miou)
            last = record(epoch, miou, best)
            writer.write_epoch(last)
            checkpoint.save(
                job.directory / "checkpoints", epoch=epoch, state=state_of(network), record={}
            )
            if miou == best:
                write_weights(network, job.directory / "best.safetensors")
        assert last is not None
        write_weights(network, job.directory / "last.safetensors")
        best_weights = job.directory / "best.safetensors"
        outcome = Outcome(
            last=last,
            stopped_early=epochs < EPOCHS,
            student_params=NUM_PARAMS,
            best_weights=best_weights,
            test=None,
        )
        writer.write_end(outcome, ["a", "b"])
        writer.delete_expired()
        return dataclasses.asdict(last)


def record(epoch: int, miou: float, best: float) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        epochs_total=EPOCHS,
        train_loss=1.0,
        loss_terms={},
        val_miou=miou,
        val_pixel_acc=0.5,
        val_class_acc=0.5,
        class_iou=[0.5, 0.5],
        lr=0.1,
        images_per_s=1.0,
        wall_s=1.0,
        best_miou=best,
        best_epoch=epoch,
    )


def state_of(network: nn.Linear) -> dict[str, Any]:
    return {
        "task": network.state_dict(),
        "optimizer": {"momentum": torch.zeros_like(network.weight)},
    }


def write_weights(network: nn.Module, file: Path) -> None:
    save_model(
        network, file, settings=ModelSettings(), num_classes=2, class_names=["a", "b"], extra={}
    )


class Watcher:
    """Measures a directory again and again in a thread of its own, and keeps the peak."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.peak_bytes = 0
        self.num_measured = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            files = self._files()
            # skip it if files changed meanwhile: the sum might have a file and its replacement
            if files == self._files():
                self.num_measured += 1
                self.peak_bytes = max(self.peak_bytes, sum(size for _, size in files.values()))

    def _files(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for path in (
            Path(parent) / name for parent, _, names in os.walk(self.directory) for name in names
        ):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                found[path] = (stat.st_mtime_ns, stat.st_size)
        return found


def watched(
    tree: dict[str, Any], make: Make, trials: int, keep_weights: int | None
) -> tuple[FakeSearch, int]:
    """Run a whole search; return it and the most bytes its runs held."""
    tree["train"]["epochs"] = EPOCHS
    tree["search"] = {"optim.lr": {"float": [0.001, 0.1]}}
    tree["tune"] = {"trials": trials - 1, "sampler": "random", "keep_weights": keep_weights}
    search = FakeSearch(make())
    with Watcher(search.store.root / "runs") as watcher:
        search.run()
    assert len(search.store.trials()) == trials
    assert watcher.num_measured > trials
    return search, watcher.peak_bytes


def budget_bytes() -> float:
    """The estimate, and 5 % for headers and manifests: some KiB in files of 64 to 128 KiB."""
    sizes = Sizes(student=NUM_PARAMS, learned=NUM_PARAMS)
    return 1.05 * disk_bytes(sizes, trials=50, concurrent=CONCURRENT, keep_weights=KEEP)


@pytest.mark.slow
def test_fifty_trials_never_exceed_the_budget_and_leave_the_leaders(
    tree: dict[str, Any], settings: Make
) -> None:
    search, peak_bytes = watched(tree, settings, 50, KEEP)
    assert 0 < peak_bytes <= budget_bytes()
    shown = summarise(search.store).shown
    assert shown is not None
    leaders = [line.trial_id for line in shown.protocols[0].ranked if line.role == "trial"][:KEEP]
    keeping = {f"{SEARCH}-0000", f"{SEARCH}-0001", *leaders}
    files = {path for path in (search.store.root / "runs").rglob("*") if path.is_file()}
    assert {path.parent.name for path in files} == keeping
    assert {path.name for path in files} == {"best.safetensors", "last.safetensors"}
    assert len(files) == 2 * len(keeping) == 2 * (KEEP + 2)
    assert shown.best_trial_id in keeping
    states = {row["state"] for row in search.store.trials().to_pylist()}
    assert states == {"COMPLETE", "PRUNED", "INFEASIBLE"}, (
        "all kinds of ends occur, and their rows stay"
    )


@pytest.mark.slow
def test_a_smaller_search_that_keeps_all_weights_exceeds_the_budget(
    tree: dict[str, Any], settings: Make
) -> None:
    search, peak_bytes = watched(tree, settings, 30, None)
    assert peak_bytes > budget_bytes()
    assert not list((search.store.root / "runs").rglob("checkpoints")), (
        "checkpoints are deleted all the same"
    )


# ---- what is deleted, and what stays


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "results", create=True)


def end(
    store: Store, trial_id: str, state: str = "COMPLETE", miou: float | None = 0.5, **facts: Any
) -> Path:
    """Write a trial's row and its files; return its directory."""
    store.append_trial(row(trial_id, state, miou, **facts))
    directory = store.root / "runs" / trial_id
    (directory / "checkpoints/epoch-0003").mkdir(parents=True, exist_ok=True)
    for name in ("checkpoints/epoch-0003/state.pt", "best.safetensors", "last.safetensors"):
        (directory / name).write_bytes(b"0" * 1000)
    return directory


def row(trial_id: str, state: str = "COMPLETE", miou: float | None = 0.5, **facts: Any) -> TrialRow:
    known = {
        "experiment": "tiny",
        "seed": 1,
        "method": "kd",
        "role": "trial",
        "search_id": SEARCH,
        "protocol": "p",
    }
    known |= {"epochs_done": 3, "epochs_total": 3, "config_hash": trial_id}
    return TrialRow(trial_id=trial_id, state=TrialState(state), best_val_miou=miou, **known | facts)


def left(directory: Path) -> list[str]:
    if not directory.exists():
        return []
    return sorted(path.name for path in directory.iterdir())


WEIGHTS = ["best.safetensors", "last.safetensors"]
ALL = [*WEIGHTS[:1], "checkpoints", *WEIGHTS[1:]]


@pytest.mark.parametrize(
    ("state", "kept"),
    [("COMPLETE", WEIGHTS), ("PRUNED", []), ("INFEASIBLE", []), ("FAILED", ALL), ("RUNNING", ALL)],
)
def test_checkpoints_are_deleted_at_the_end_of_a_trial_unless_it_may_resume(
    store: Store, state: str, kept: list[str]
) -> None:
    directory = end(store, f"{SEARCH}-0002", state)
    delete_expired(store, SEARCH, keep_weights=1)
    assert left(directory) == kept


@pytest.mark.parametrize("state", ["COMPLETE", "INFEASIBLE", "FAILED"])
def test_the_log_of_a_failure_stays_in_every_state(store: Store, state: str) -> None:
    log = end(store, f"{SEARCH}-0002", state) / "failure.log"
    log.write_text("Traceback")
    delete_expired(store, SEARCH, keep_weights=1)
    assert log.read_text() == "Traceback"


@pytest.mark.parametrize(
    "facts",
    [
        {"role": "run", "search_id": None},
        {"role": "teacher", "search_id": None},
        {"search_id": "tiny.search2"},
    ],
)
def test_files_of_other_runs_are_not_touched(store: Store, facts: dict[str, Any]) -> None:
    directory = end(store, "other", "PRUNED", **facts)
    delete_expired(store, SEARCH, keep_weights=1)
    assert left(directory) == ALL


@pytest.mark.parametrize("role", ["baseline", "as_written"])
def test_baseline_and_as_written_trial_keep_their_weights_in_every_state(
    store: Store, role: str
) -> None:
    directory = end(store, f"{SEARCH}-0000", "PRUNED", 0.1, role=role)
    end(store, f"{SEARCH}-0002")
    delete_expired(store, SEARCH, keep_weights=1)
    assert left(directory) == WEIGHTS


def test_runs_of_confirm_keep_no_weights_once_they_have_ended_unless_all_do(store: Store) -> None:
    ends = {"s1": "COMPLETE", "s2": "INFEASIBLE", "s3": "FAILED", "s4": "RUNNING"}
    runs = [
        end(store, f"tiny.search1.confirm-ab12-{seed}", ends[seed], 0.9, role="confirm")
        for seed in ends
    ]
    delete_expired(store, SEARCH, keep_weights=None)
    assert [left(run) for run in runs] == [WEIGHTS, WEIGHTS, ALL, ALL]
    delete_expired(store, SEARCH, keep_weights=5)
    assert [left(run) for run in runs] == [[], [], ALL, ALL]


def test_a_leader_that_is_overtaken_loses_its_weights_and_keeps_its_row(store: Store) -> None:
    first = end(store, f"{SEARCH}-0002", miou=0.5)
    delete_expired(store, SEARCH, keep_weights=1)
    assert left(first) == WEIGHTS
    second = end(store, f"{SEARCH}-0003", miou=0.6)
    delete_expired(store, SEARCH, keep_weights=1)
    assert (left(first), left(second)) == ([], WEIGHTS)
    assert len(store.trials()) == 2


def test_a_pruned_trial_does_not_lead_whatever_its_score(store: Store) -> None:
    pruned, complete = (
        end(store, f"{SEARCH}-0002", "PRUNED", 0.9),
        end(store, f"{SEARCH}-0003", miou=0.1),
    )
    delete_expired(store, SEARCH, keep_weights=1)
    assert (left(pruned), left(complete)) == ([], WEIGHTS)


def test_what_a_kill_left_half_deleted_is_deleted_the_next_time(store: Store) -> None:
    directory = end(store, f"{SEARCH}-0002", "PRUNED")
    (directory / "checkpoints/epoch-0003/state.pt").unlink()
    (directory / "best.safetensors").unlink()
    (directory / ".best.safetensors.ab12.partial").write_bytes(b"0")
    delete_expired(store, SEARCH, keep_weights=1)
    assert left(directory) == []


def test_the_best_of_the_report_keeps_its_weights_and_what_was_dropped_is_never_needed() -> None:
    rng = random.Random(0)
    num_of_baseline_config = 0
    for _ in range(200):
        rows = [row("s-0000", role="baseline", config_hash="b").to_dict()]
        dropped: set[str] = set()
        keep = rng.randint(1, 3)
        for index in range(1, 15):
            state = rng.choice(["COMPLETE", "COMPLETE", "PRUNED"])
            facts = {
                "config_hash": rng.choice("bcd"),
                "protocol": rng.choice("pq"),
                "student_params": rng.randint(1, 3),
            }
            rows.append(row(f"s-{index:04d}", state, rng.randint(0, 9) / 10, **facts).to_dict())
            kept = trials_keeping_weights(rows, keep)
            for protocol in "pq":
                lines = [line(each) for each in rows if each["protocol"] == protocol]
                best = ranking.compare(protocol, None, lines).best
                num_of_baseline_config += best is not None and best != ranking.rank(lines)[0]
                assert best is None or best.trial_id in kept
            assert kept.isdisjoint(dropped)
            dropped = {each["trial_id"] for each in rows} - kept
            complete = {
                each["trial_id"]
                for each in rows
                if each["state"] == "COMPLETE" and each["role"] == "trial"
            }
            assert len(kept & complete) <= 2 * keep
    assert num_of_baseline_config > 100, (
        "seeds of the baseline's own config lead sometimes, and are not the best"
    )


def test_the_best_of_the_report_is_kept_where_another_config_has_a_luckier_seed() -> None:
    rows = [
        row("s-0000", role="baseline", config_hash="b"),
        row("s-0002", miou=0.7, config_hash="lucky"),
        row("s-0003", miou=0.3, config_hash="lucky", seed=2),
        row("s-0004", miou=0.6, config_hash="steady"),
        row("s-0005", miou=0.6, config_hash="steady", seed=2),
    ]
    found = [each.to_dict() for each in rows]
    assert trials_keeping_weights(found, 1) == {"s-0000", "s-0004"}
    assert trials_keeping_weights(found, 2) == {"s-0000", "s-0004", "s-0002"}
    best = ranking.compare(
        "p", None, [line({**each, "searched_json": "{}"}) for each in found]
    ).best
    assert best is not None
    assert best.trial_id == "s-0004"


def test_of_the_baselines_the_best_alone_keeps_its_weights_once_it_is_known() -> None:
    rows = [
        row("s-0000", "RUNNING", 0.1, role="baseline"),
        row("s-0002", miou=0.9),
        row("s-b0001", "PRUNED", 0.8, role="baseline_trial"),
    ]
    assert trials_keeping_weights([each.to_dict() for each in rows], 1) == {"s-0000", "s-0002"}
    rows[0] = row("s-0000", miou=0.5, role="baseline")
    assert trials_keeping_weights([each.to_dict() for each in rows], 1) == {"s-0000", "s-0002"}
    rows += [
        row("s-b0002", miou=0.6, role="baseline_trial"),
        row("s-b0003", miou=0.4, role="baseline_trial"),
    ]
    assert trials_keeping_weights([each.to_dict() for each in rows], 1) == {"s-b0002", "s-0002"}
    rows += [
        row("s-0003", miou=0.95, config_hash="s-b0002")
    ]  # drawn as a student alone: no best config
    assert trials_keeping_weights([each.to_dict() for each in rows], 1) == {"s-b0002", "s-0002"}


def test_weights_of_the_front_come_before_those_of_the_ranking_within_as_many_as_are_kept() -> None:
    aims = ("val_miou", "student_params")
    sizes = [
        ("best", 0.9, 30),
        ("second", 0.8, 31),
        ("third", 0.7, 20),
        ("fourth", 0.6, 21),
        ("small", 0.2, 1),
    ]
    rows = [row(name, miou=miou, student_params=params).to_dict() for name, miou, params in sizes]
    rows += [row("s-0000", role="baseline", miou=0.15, student_params=1, config_hash="b").to_dict()]
    assert trials_keeping_weights(rows, 3, aims) == {"s-0000", "best", "third", "small"}
    assert trials_keeping_weights(rows, 2, aims) == {"s-0000", "best", "third"}
    assert trials_keeping_weights(rows, 4, aims) == {"s-0000", "best", "second", "third", "small"}
    assert trials_keeping_weights(rows, 3) == {"s-0000", "best", "second", "third"}


def test_a_tuned_baseline_on_the_front_keeps_its_weights_though_another_is_the_best_baseline() -> (
    None
):
    aims = ("val_miou", "student_params")
    rows = [
        row("s-0000", miou=0.5, role="baseline", student_params=9),
        row("s-b0001", miou=0.4, role="baseline_trial", student_params=2),
        row("s-b0002", miou=0.3, role="baseline_trial", student_params=3),
        row("s-0002", miou=0.9, student_params=9),
        row("s-0003", miou=0.8, student_params=10),
    ]
    found = [each.to_dict() for each in rows]
    assert trials_keeping_weights(found, 2, aims) == {"s-0000", "s-0002", "s-b0001"}
    assert trials_keeping_weights(found, 1, aims) == {"s-0000", "s-0002"}
    assert trials_keeping_weights(found, 2) == {"s-0000", "s-0002", "s-0003"}


def test_a_lucky_seed_of_a_config_is_no_front() -> None:
    rows = [
        row("s-0002", miou=0.8, student_params=9, config_hash="lucky"),
        row("s-0003", miou=0.2, student_params=9, config_hash="lucky", seed=2),
        row("s-0004", miou=0.7, student_params=9, config_hash="steady"),
        row("s-0005", miou=0.3, student_params=1),
    ]
    kept = trials_keeping_weights(
        [each.to_dict() for each in rows], 2, ("val_miou", "student_params")
    )
    assert kept == {"s-0004", "s-0005"}


def test_links_are_not_followed(store: Store, tmp_path: Path) -> None:
    outside = end(Store.open(tmp_path / "outside", create=True), f"{SEARCH}-0002", "PRUNED")
    directory = end(store, f"{SEARCH}-0002", "PRUNED")
    shutil.rmtree(directory)
    directory.symlink_to(outside)
    inner = end(store, f"{SEARCH}-0003", "PRUNED")
    shutil.rmtree(inner / "checkpoints")
    (inner / "checkpoints").symlink_to(outside / "checkpoints")
    delete_expired(store, SEARCH, keep_weights=1)
    assert left(outside) == ALL
    assert left(inner) == ["checkpoints"]


def test_a_row_whose_id_is_a_path_leads_nowhere(store: Store) -> None:
    with pytest.raises(StoreError, match=r"trial id '\.\./\.\./mine': needs letters"):
        run_directory(store, "../../mine")


# ---- a full disk


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def fill() -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(shutil, "rmtree", refuse)
        monkeypatch.setattr(os, "unlink", refuse)
        monkeypatch.setattr(os, "fsync", refuse)

    return fill


def test_a_disk_that_refuses_to_delete_is_one_error_and_nothing_is_lost(
    tree: dict[str, Any], settings: Make, full_disk: Callable[[], None]
) -> None:
    tree["search"] = {"optim.lr": {"float": [0.001, 0.1]}}
    search = FakeSearch(settings())
    leader, loser = (
        end(search.store, f"{SEARCH}-0002"),
        end(search.store, f"{SEARCH}-0003", "PRUNED"),
    )
    full_disk()
    search.bridge.delete_expired()
    assert isinstance(search.bridge.fatal, StoreError)
    assert str(search.bridge.fatal).endswith(
        "checkpoints: cannot be deleted: No space left on device; delete it, and start the same "
        "again"
    )
    assert left(leader) == left(loser) == ALL
    assert len(search.store.trials()) == 2


def test_settings_that_cannot_be_written_leave_the_old_ones(
    tree: dict[str, Any], settings: Make, full_disk: Callable[[], None]
) -> None:
    claim_run_id(settings(), "search", fresh=False)
    (file,) = (Path(settings().store) / "experiments").iterdir()
    before = file.read_bytes()
    tree["tune"] = {"keep_weights": 2}
    full_disk()
    with pytest.raises(
        StoreError, match=r"search1\.json: cannot be written: No space left on device"
    ):
        claim_run_id(settings(), "search", fresh=False)
    assert file.read_bytes() == before


def test_keep_weights_may_change_and_is_written(tree: dict[str, Any], settings: Make) -> None:
    assert claim_run_id(settings(), "search", fresh=False) == SEARCH
    tree["tune"] = {"keep_weights": 2}
    with experiment_lock(settings(), "search"):
        assert claim_run_id(settings(), "search", fresh=False) == SEARCH
    file = Path(settings().store) / "experiments" / f"{SEARCH}.json"
    assert ExperimentSettings.model_validate_json(file.read_text()).tune.keep_weights == 2
