import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from attnfd_ray.store.rows import EpochRow, TrialRow
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WHO = {
    "experiment": "camvid",
    "trial_id": "t0001",
    "seed": 1,
    "method": "attnfd",
    "role": "trial",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "results", create=True)


@pytest.fixture
def epoch_row() -> Callable[..., EpochRow]:
    """Make epoch rows a second apart."""
    seconds = itertools.count()

    def make(epoch: int = 1, **values: Any) -> EpochRow:
        known: dict[str, Any] = {
            **WHO,
            "epochs_total": 120,
            "train_loss": 0.7,
            "loss_terms": {"ce": 0.5, "kd": 0.2},
            "val_miou": 0.5,
            "class_iou": [0.4, None, 0.6],
            "protocol": "val 360x480",
            "time_utc": NOON + timedelta(seconds=next(seconds)),
        }
        return EpochRow(epoch=epoch, **known | values)

    return make


@pytest.fixture
def trial_row() -> Callable[..., TrialRow]:
    """Make trial rows a second apart."""
    seconds = itertools.count()

    def make(state: TrialState = TrialState.COMPLETE, **values: Any) -> TrialRow:
        known: dict[str, Any] = {
            **WHO,
            "versions": {"torch": "2.14.1"},
            "time_utc": NOON + timedelta(seconds=next(seconds)),
        }
        return TrialRow(state=state, **known | values)

    return make
