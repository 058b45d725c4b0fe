"""A store of schema 1 stays readable; see tests/golden/README.md."""

from datetime import UTC, datetime
from pathlib import Path

from attnfd_ray.store.store import Store

GOLDEN = Path(__file__).parents[1] / "golden" / "store_v1"


def test_the_trials_of_an_old_store():
    rows = {row["trial_id"]: row for row in Store.open(GOLDEN, create=False).trials().to_pylist()}
    assert {name: row["state"] for name, row in rows.items()} == {
        "t0": "COMPLETE", "t1": "COMPLETE", "t2": "COMPLETE", "t3": "PRUNED", "t4": "FAILED",
    }  # fmt: skip
    assert rows["t1"]["versions"] == [("torch", "2.14.1"), ("python", "3.11.7")]
    assert rows["t2"]["best_val_miou"] == 0.6033
    assert rows["t0"]["checkpoint"] == "checkpoints/t0/best.safetensors"


def test_the_epochs_of_an_old_store():
    rows = Store.open(GOLDEN, create=False).epochs().to_pylist()
    assert [(row["trial_id"], row["epoch"], row["val_miou"]) for row in rows] == [
        ("t2", 1, 0.5), ("t2", 2, 0.55), ("t3", 1, 0.3),
    ]  # fmt: skip
    assert rows[0]["loss_terms"] == [("ce", 0.5), ("kd", 0.25)]
    assert [row[name] for row in rows for name in ("gradient_norms", "gradient_cosines")] == [
        None
    ] * 6  # not known then
    assert rows[0]["class_iou"] == [0.25, None, 0.75]
    assert rows[0]["time_utc"] == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_the_golden_store_is_whole():
    assert len(list(GOLDEN.rglob("*.parquet"))) == 7
