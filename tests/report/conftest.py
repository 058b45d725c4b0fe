import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from attnfd_ray.store.rows import EpochRow, TrialRow
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState

CONFIG = {"experiment": "camvid", "method": {"name": "attnfd"}, "search": {}, "tune": {}}


class Writer:
    """Fills a store, one row per trial, with a clock that advances a minute per row."""

    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    protocol = "val 360x480, no flips"

    def __init__(self, root: Path) -> None:
        self.store = Store.open(root, create=True)
        self._minutes = 0

    def __call__(self, trial_id: str, miou: float | None = None, **given: Any) -> None:
        """Append a trial.

        `miou` is its best, at epoch 118 of 120, and 0.25 points above its last.
        """
        self._minutes += 1
        values = given.pop("values", {})
        known: dict[str, Any] = {
            "experiment": "camvid",
            "search_id": "s1",
            "seed": 1,
            "method": "attnfd",
            "role": "trial",
            "state": TrialState.COMPLETE,
            "config_hash": trial_id,
            "searched_json": json.dumps(values),
            "config_json": json.dumps(CONFIG),
            "time_utc": self.noon + timedelta(minutes=self._minutes),
        }
        if miou is not None:
            known |= {
                "best_val_miou": miou,
                "best_epoch": 118,
                "last_val_miou": miou - 0.0025,
                "epochs_done": 120,
                "epochs_total": 120,
                "protocol": self.protocol,
                "student_params": 11_000_000,
                "wall_s": 3723.0,
            }
        self.store.append_trial(TrialRow(trial_id=trial_id, **known | given))

    def epochs(self, trial_id: str, mious: list[float], **given: Any) -> None:
        """Append one epoch of 30 s for each mIoU."""
        known = {
            "experiment": "camvid",
            "seed": 1,
            "method": "attnfd",
            "role": "trial",
            "epochs_total": 120,
        } | given
        for epoch, miou in enumerate(mious, start=1):
            self.store.append_epoch(
                EpochRow(
                    trial_id=trial_id,
                    epoch=epoch,
                    val_miou=miou,
                    protocol=self.protocol,
                    images_per_s=100.0 + epoch,
                    wall_s=30.0,
                    time_utc=self.noon,
                    **known,
                )
            )


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    monkeypatch.chdir(tmp_path)
    return Writer(Path("results"))


@pytest.fixture
def search(write: Writer) -> Writer:
    """A small search with a trial of every state and role."""
    write(
        "t0", 0.6712, role="teacher", method="none", teacher_hash="abc", student_params=59_000_000
    )
    write("t1", 0.58, role="baseline")
    write("t2", 0.591, role="as_written")
    write(
        "t3",
        0.6033,
        values={"method.layers": ["stage4", "aspp"], "method.loss_weight": 2.154},
        peak_mem_mib=9121.4,
    )
    write(
        "t4",
        0.5712,
        values={
            "method.layers": ["stage1", "stage2", "stage3", "decoder"],
            "method.loss_weight": 87.0,
        },
    )
    write(
        "t5",
        0.41,
        values={"method.layers": ["stage1"], "method.loss_weight": 0.1},
        state=TrialState.PRUNED,
        best_epoch=9,
        epochs_done=10,
        stop_reason="asha: below the best third at epoch 10",
    )
    write(
        "t6",
        state=TrialState.FAILED,
        failure_kind="out_of_memory",
        failure_text="CUDA out of memory\nat line 3",
    )
    write("t7", state=TrialState.FAILED, failure_kind="out_of_memory", failure_text="another")
    write("t8", state=TrialState.INFEASIBLE, failure_kind="connector", failure_text="no such [tap]")
    write("t9", state=TrialState.RUNNING, values={"method.layers": ["aspp"]}, epochs_total=120)
    write.epochs("t9", [0.2, 0.31, 0.3])
    write("r1", 0.602, role="run", search_id=None)
    return write
