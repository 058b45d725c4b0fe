"""`attnfd-ray gc`: deletes what killed commands left, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from attnfd_ray.cli import cli
from attnfd_ray.errors import StoreError
from attnfd_ray.runtime.files.claims import file_lock
from attnfd_ray.store.rows import TrialRow
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState

MIB = b"0" * 2**20
# file in a store -> whether it is deleted
FILES = {
    "runs/e.search1-0000/best.safetensors": False,  # of the baseline
    "runs/e.search1-0000/checkpoints/epoch-0003/state.pt": True,
    "runs/e.search1-0002/best.safetensors": False,  # of the leader
    "runs/e.search1-0002/checkpoints/epoch-0003/state.pt": True,
    "runs/e.search1-0003/best.safetensors": True,  # does not lead
    "runs/e.search1-0003/last.safetensors": True,
    "runs/e.search1-0004/checkpoints/epoch-0002/state.pt": False,  # RUNNING: it resumes
    "runs/e.search1-0004/checkpoints/epoch-0003.writing/state.pt": True,
    "runs/e.search1-0004/.best.safetensors.ab12.partial": True,
    "runs/e.search1-0004/best.safetensors": False,
    "runs/e.search1-0005/checkpoints/epoch-0002/state.pt": False,  # FAILED: it may be retried
    "runs/e.search1-b0001/checkpoints/epoch-0002/state.pt": False,
    "runs/e.search1-b0001/checkpoints/epoch-0003.writing/state.pt": True,  # of a killed trial
    "runs/e.search1-b0001/.best.safetensors.ab12.partial": True,
    "runs/e.search1.confirm-ab12cd34-s7/best.safetensors": False,
    "runs/e.search1.confirm-ab12cd34-s7/.best.safetensors.ab12.partial": True,
    "runs/e.train1/best.safetensors": False,
    "runs/e.train1/checkpoints/epoch-0003/state.pt": False,
    "runs/e.train1/.last.safetensors.ab12.partial": True,
    "runs/teacher-ab12/best.safetensors": False,
    "runs/teacher-ab12/checkpoints/epoch-0001.writing/state.pt": True,
    "runs/mine/.best.safetensors.ab12.partial": False,  # of no known run
    "ray/e.search1-0123abcd/tune/state.json": True,
    "ray/e.search1.confirm-0123abcd/group-0/state.json": True,
    "ray/e.train1-0123abcd/group-0/state.json": True,
    "ray/other-0123abcd/state.json": False,
    "preflight/0123abcd/driver": True,
    "preflight/mine/driver": False,
}
OF_THE_SEARCH = {name for name in FILES if "e.search1" in name}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "results"
    store = Store.open(root, create=True)
    states = {
        "0000": "COMPLETE",
        "0002": "COMPLETE",
        "0003": "PRUNED",
        "0004": "RUNNING",
        "0005": "FAILED",
    }
    for number, state in states.items():
        append(store, f"e.search1-{number}", state, search_id="e.search1")
    append(store, "e.train1", "COMPLETE", role="run")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(MIB)
    (root / "experiments").mkdir()
    (root / "experiments/e.search1.json").write_text(json.dumps({"tune": {"keep_weights": 1}}))
    (root / "experiments/e.train1.json").write_text(json.dumps({"tune": {"keep_weights": 1}}))
    os.utime(root / "preflight/0123abcd", (0, 0))
    return root


def append(
    store: Store,
    trial_id: str,
    state: str,
    *,
    search_id: str | None = None,
    role: str = "trial",
    **more: Any,
) -> None:
    facts: Any = {
        "experiment": "e",
        "seed": 1,
        "method": "kd",
        "search_id": search_id,
        "best_val_miou": 0.5,
    }
    facts["role"] = "baseline" if trial_id.endswith("0000") else role
    store.append_trial(TrialRow(trial_id=trial_id, state=TrialState(state), **facts | more))


def gc(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["gc", *map(str, arguments)])


def existing(store: Path) -> set[str]:
    return {name for name in FILES if (store / name).exists()}


STAY = {name for name, deleted in FILES.items() if not deleted}


def test_files_that_are_not_needed_are_deleted_and_the_others_stay(store: Path) -> None:
    done = gc(store)
    assert (done.exit_code, done.stderr) == (0, "")
    assert existing(store) == STAY
    assert len(FILES) - len(STAY) == 15
    assert done.stdout.splitlines()[-1] == "     15.00 MiB  deleted"
    assert len(Store.open(store, create=False).trials()) == 6, "rows stay"


def test_a_dry_run_prints_the_same_and_deletes_nothing(store: Path) -> None:
    dry_run = gc(store, "--dry-run")
    assert existing(store) == FILES.keys()
    *lines, total = dry_run.stdout.splitlines()
    assert total == "     15.00 MiB  could be deleted"
    assert (
        "      1.00 MiB  runs/e.search1-0003/best.safetensors  (weights of a trial that does not "
        "lead)" in lines
    )
    assert "      1.00 MiB  runs/e.search1-0002/checkpoints  (the trial is COMPLETE)" in lines
    assert gc(store).stdout.splitlines()[:-1] == lines
    assert gc(store).stdout == "      0.00 MiB  deleted\n"


def test_an_experiment_that_a_command_works_on_is_skipped(store: Path) -> None:
    with file_lock(store, "e.search", "busy"):
        done = gc(store)
    assert done.exit_code == 0
    assert done.stderr == (
        f"skipped: {store}/experiments/e.search.lock: a command is working on 'e.search'\n"
    )
    assert existing(store) == STAY | OF_THE_SEARCH | {"preflight/0123abcd/driver"}


def test_a_search_is_locked_while_its_files_are_deleted(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def remove(path: Path) -> None:
        with pytest.raises(StoreError, match="busy"), file_lock(store, "e.search", "busy"):
            pass
        refused.append(path)

    monkeypatch.setattr("attnfd_ray.runtime.files.gc.remove", remove)
    (store / "experiments/e.train1.json").unlink()
    for name in (
        "runs/teacher-ab12/checkpoints/epoch-0001.writing/state.pt",
        "preflight/0123abcd/driver",
    ):
        (store / name).unlink()
        (store / name).parent.rmdir()
    assert gc(store).exit_code == 0
    assert len(refused) == 11


def test_a_preflight_check_in_progress_is_left_alone(store: Path) -> None:
    os.utime(store / "preflight/0123abcd")
    gc(store)
    assert existing(store) == STAY | {"preflight/0123abcd/driver"}


@pytest.mark.parametrize("tune", [{"keep_weights": None}, {}])
def test_a_search_with_keep_weights_null_or_without_it_keeps_all_weights(
    store: Path, tune: dict[str, Any]
) -> None:
    (store / "experiments/e.search1.json").write_text(json.dumps({"tune": tune}))
    gc(store)
    assert existing(store) == STAY | {
        f"runs/e.search1-0003/{name}.safetensors" for name in ("best", "last")
    }


def test_of_a_search_with_several_metrics_the_front_keeps_its_weights(store: Path) -> None:
    results = Store.open(store, create=False)
    for number, miou, params in (("0006", 0.9, 9), ("0007", 0.8, 9), ("0008", 0.1, 1)):
        append(
            results,
            f"e.search1-{number}",
            "COMPLETE",
            search_id="e.search1",
            best_val_miou=miou,
            student_params=params,
        )
        (store / f"runs/e.search1-{number}").mkdir()
        (store / f"runs/e.search1-{number}/best.safetensors").write_bytes(MIB)
    tune = {"keep_weights": 2, "metric": ["val_miou", "student_params"]}
    (store / "experiments/e.search1.json").write_text(json.dumps({"tune": tune}))
    assert gc(store).exit_code == 0
    left = [
        path.parent.name for path in sorted(store.glob("runs/e.search1-000[678]/best.safetensors"))
    ]
    assert left == ["e.search1-0006", "e.search1-0008"]


def test_links_are_not_followed(store: Path, tmp_path: Path) -> None:
    (store / "runs").rename(tmp_path / "runs")
    (store / "runs").symlink_to(tmp_path / "runs")
    (tmp_path / "tune").mkdir()
    (store / "ray/e.search1-00000000").symlink_to(tmp_path / "tune")
    gc(store)
    assert existing(store) == STAY | {name for name in FILES if name.startswith("runs/")}
    assert (tmp_path / "tune").is_dir()


def test_settings_that_cannot_be_read_are_one_line(store: Path) -> None:
    (store / "experiments/e.search1.json").write_text('{"tune": {"keep_weights": "some"}}')
    error = gc(store).exception
    assert isinstance(error, StoreError)
    assert str(error).startswith(
        f"{store}/experiments/e.search1.json: cannot be read as settings; restore it"
    )
    assert existing(store) >= STAY


def test_a_directory_that_is_not_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    error = gc(tmp_path).exception
    assert isinstance(error, StoreError)
    assert error.exit_code == 2
