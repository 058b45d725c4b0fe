"""Other tools read the parts directly, also after the directory was copied."""

import shutil

import duckdb
import pandas as pd
import pyarrow.dataset as ds
import pytest

from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState


@pytest.fixture(params=["in place", "copied"])
def root(request, store, epoch_row, trial_row, tmp_path):
    for epoch, miou in enumerate([0.25, 0.5, 0.4], start=1):
        store.append_epoch(epoch_row(epoch, val_miou=miou))
    store.append_epoch(epoch_row(1, trial_id="t0002", val_miou=0.125))
    store.compact("t0001")
    store.append_trial(
        trial_row(TrialState.COMPLETE, checkpoint=str(store.root / "checkpoints" / "best.pt"))
    )
    (store.root / "epochs" / ".leftover.tmp").write_bytes(b"half")
    if request.param == "in place":
        return store.root
    copy = tmp_path / "copy"
    shutil.copytree(store.root, copy)
    shutil.rmtree(store.root)
    return copy


def test_ours(root):
    store = Store.open(root, create=False)
    assert store.epochs()["val_miou"].to_pylist() == [0.25, 0.5, 0.4, 0.125]
    [checkpoint] = store.trials()["checkpoint"].to_pylist()
    assert store.root / checkpoint == root / "checkpoints" / "best.pt"


def test_pyarrow(root):
    table = ds.dataset(root / "epochs").to_table()
    assert sorted(table["val_miou"].to_pylist()) == [0.125, 0.25, 0.4, 0.5]


def test_pandas(root):
    frame = pd.read_parquet(root / "epochs")
    assert frame.groupby("trial_id").val_miou.max().to_dict() == {"t0001": 0.5, "t0002": 0.125}
    assert str(frame.time_utc.dtype).endswith("UTC]")
    assert pd.read_parquet(root / "trials").state.tolist() == ["COMPLETE"]


def test_duckdb(root):
    query = f"""
        SELECT
            e.trial_id, max(val_miou), any_value(loss_terms['kd']), any_value(class_iou),
            any_value(t.state)
        FROM '{root}/epochs/*.parquet' e
        LEFT JOIN '{root}/trials/*.parquet' t USING (trial_id)
        GROUP BY ALL ORDER BY 1
    """
    assert duckdb.sql(query).fetchall() == [
        ("t0001", 0.5, 0.2, [0.4, None, 0.6], "COMPLETE"),
        ("t0002", 0.125, 0.2, [0.4, None, 0.6], None),
    ]
