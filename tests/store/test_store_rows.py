import math
import random
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnfd_ray.errors import StoreError
from attnfd_ray.store import latest
from attnfd_ray.store.schema import EPOCHS, TRIALS
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState


def test_rows_come_back_as_they_went_in(store, epoch_row, trial_row):
    epoch, trial = (
        epoch_row(7, lr=1e-300, images_per_s=2**53 + 0.0),
        trial_row(student_params=11_000_000),
    )
    store.append_epoch(epoch)
    store.append_trial(trial)
    [epoch_back], [trial_back] = store.epochs().to_pylist(), store.trials().to_pylist()
    assert {**epoch_back, "loss_terms": dict(epoch_back["loss_terms"])} == epoch.to_dict()
    assert {**trial_back, "versions": dict(trial_back["versions"])} == trial.to_dict()


def test_gradients_come_back_as_they_went_in_and_null_where_none_was_measured(store, epoch_row):
    norms, cosines = {"cross_entropy": 0.0, "kd": 7.25, "distillation": 7.25}, {"kd": -0.5}
    store.append_epoch(epoch_row(1, gradient_norms=norms, gradient_cosines=cosines))
    store.append_epoch(epoch_row(2))
    store.compact("t0001")
    first, second = store.epochs(columns=["gradient_norms", "gradient_cosines"]).to_pylist()
    assert (dict(first["gradient_norms"]), dict(first["gradient_cosines"])) == (norms, cosines)
    assert second == {"gradient_norms": None, "gradient_cosines": None}


def test_a_diverged_loss_is_kept_as_it_was(store, epoch_row):
    store.append_epoch(epoch_row(train_loss=math.inf, val_miou=math.nan))
    [row] = store.epochs().to_pylist()
    assert row["train_loss"] == math.inf
    assert math.isnan(row["val_miou"])


def test_an_empty_store_has_the_columns_and_no_rows(store):
    assert store.epochs().schema.equals(EPOCHS)
    assert store.trials().schema.equals(TRIALS)
    assert store.last_attempt("t0001") == 0
    assert store.compact() == 0


def test_an_epoch_counts_once_and_a_later_attempt_wins(store, epoch_row):
    for attempt, epoch, miou in [
        (1, 1, 0.1),
        (1, 2, 0.2),
        (2, 2, 0.22),
        (2, 3, 0.3),
        (1, 3, 0.9),
        (2, 3, 0.33),
    ]:
        store.append_epoch(epoch_row(epoch, attempt=attempt, val_miou=miou))
    rows = store.epochs(columns=["epoch", "val_miou"]).to_pylist()
    assert [(row["epoch"], row["val_miou"]) for row in rows] == [(1, 0.1), (2, 0.22), (3, 0.33)]
    assert store.last_attempt("t0001") == 2


def test_a_final_state_wins_over_running_and_a_later_attempt_over_both(store, trial_row):
    store.append_trial(trial_row(TrialState.FAILED))
    store.append_trial(trial_row(TrialState.RUNNING))  # written later, by a clock that may be wrong
    assert store.trials()["state"].to_pylist() == ["FAILED"]
    store.append_trial(trial_row(TrialState.RUNNING, attempt=2))
    assert store.trials()["state"].to_pylist() == ["RUNNING"]
    assert store.last_attempt("t0001") == 2


def test_one_trial_is_not_mistaken_for_another(store, epoch_row):
    for name in ("t1", "t1.a001", "t1.a001.e00001", "t10"):
        store.append_epoch(epoch_row(trial_id=name))
    for name in ("t1", "t1.a001", "t1.a001.e00001", "t10"):
        assert store.epochs(name)["trial_id"].to_pylist() == [name]
    assert store.epochs("t").num_rows == 0


@pytest.mark.parametrize("trial_id", ["", "../t1", "a/b", ".t1", "t 1", "t1\n", "t" * 151])
def test_a_trial_id_that_is_no_file_name_is_refused(store, epoch_row, trial_id):
    with pytest.raises(StoreError, match="trial id"):
        store.append_epoch(epoch_row(trial_id=trial_id))
    assert store.epochs().num_rows == 0


def test_the_longest_trial_id_fits(store, epoch_row):
    store.append_epoch(epoch_row(trial_id="t" * 150))
    assert store.epochs("t" * 150).num_rows == 1


def test_many_writers_at_once_lose_nothing(tmp_path, epoch_row):
    def write(trial: int) -> None:
        mine = Store.open(tmp_path / "results", create=True)
        for epoch in range(1, 6):
            mine.append_epoch(epoch_row(epoch, trial_id=f"t{trial}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert Store.open(tmp_path / "results", create=False).epochs().num_rows == 40


def test_checkpoints_are_kept_relative_to_the_store(store, trial_row, tmp_path):
    inside, outside = store.root / "checkpoints" / "t1" / "best.pt", tmp_path / "elsewhere.pt"
    store.append_trial(trial_row(trial_id="t1", checkpoint=str(inside)))
    store.append_trial(trial_row(trial_id="t2", checkpoint=str(outside)))
    store.append_trial(trial_row(trial_id="t3", checkpoint="checkpoints/t1/best.pt"))
    kept = store.trials()["checkpoint"].to_pylist()
    assert kept == ["checkpoints/t1/best.pt", str(outside), "checkpoints/t1/best.pt"]
    assert [store.root / path for path in kept] == [inside, outside, inside]


def test_columns_come_and_go_between_versions(store, epoch_row):
    store.append_epoch(epoch_row(1))
    [part] = (store.root / "epochs").iterdir()
    table = pq.read_table(part)
    old = table.drop_columns(["lr", "class_iou", "loss_terms"])
    new = table.append_column("energy_wh", pa.array([3.5])).set_column(
        9, "epoch", pa.array([3], pa.int32())
    )
    pq.write_table(
        old.set_column(9, "epoch", pa.array([2])),
        part.with_name("t0001.a001.e00002-00000000.parquet"),
    )
    pq.write_table(new, part.with_name("t0001.a001.e00003-00000000.parquet"))
    assert old.schema.names[9] == new.schema.names[9] == "epoch"

    rows = store.epochs()
    assert rows.schema.equals(EPOCHS)
    assert rows["epoch"].to_pylist() == [1, 2, 3]
    assert rows["class_iou"].to_pylist() == [[0.4, None, 0.6], None, [0.4, None, 0.6]]
    store.compact("t0001")
    assert store.epochs().equals(rows)
    [merged] = (store.root / "epochs").iterdir()
    assert pq.read_table(merged)["energy_wh"].to_pylist() == [None, None, 3.5]  # not ours to drop


def test_leftovers_of_a_killed_writer_are_passed_over(store, epoch_row):
    store.append_epoch(epoch_row())
    (store.root / "epochs" / ".0123456789abcdef.tmp").write_bytes(b"PAR1 half a")
    (store.root / "epochs" / "notes.txt").write_text("mine")
    assert store.epochs().num_rows == 1


@pytest.mark.parametrize("keep", [0, 1, 0.5])
def test_a_torn_part_is_named(store, epoch_row, keep):
    store.append_epoch(epoch_row())
    [part] = (store.root / "epochs").iterdir()
    content = part.read_bytes()
    part.write_bytes(content[: int(len(content) * keep) - 1 if keep else 0])
    with pytest.raises(StoreError) as caught:
        store.epochs()
    assert str(caught.value).startswith(f"{part}: not a readable part: ")
    assert "\n" not in str(caught.value)


def test_a_parquet_file_of_something_else_is_named(store):
    stray = store.root / "epochs" / "stray.parquet"
    pq.write_table(pa.table({"x": [1]}), stray)
    with pytest.raises(
        StoreError, match=r"stray\.parquet: not a readable part: it has no trial_id"
    ):
        store.epochs("t0001")


def test_a_disk_that_refuses_is_an_error_of_ours_and_leaves_nothing(store, epoch_row, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        store.append_epoch(epoch_row())
    assert list((store.root / "epochs").iterdir()) == []


CELLS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.integers(1, 3), st.integers(0, 50)),
    unique=True,
    max_size=12,
)


@settings(deadline=None)  # other work may share the machine
@given(cells=CELLS, seed=st.integers())
def test_the_order_of_rows_does_not_matter(cells, seed):
    shuffled = random.Random(seed).sample(cells, len(cells))
    names = ("trial_id", "epoch", "attempt", "time_utc")

    def resolved(rows):
        table = pa.table({name: [row[at] for row in rows] for at, name in enumerate(names)})
        return latest.latest_epochs(table).to_pylist() if rows else []

    best = {
        key: max(cell[2:] for cell in cells if cell[:2] == key)
        for key in {cell[:2] for cell in cells}
    }
    expected = [dict(zip(names, key + best[key], strict=True)) for key in sorted(best)]
    assert resolved(shuffled) == resolved(cells) == expected


STATES = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(1, 2),
        st.sampled_from(["RUNNING", "FAILED"]),
        st.integers(0, 9),
    ),
    unique_by=lambda row: (row[0], row[3]),
    min_size=1,
)


@settings(deadline=None)  # other work may share the machine
@given(rows=STATES, seed=st.integers())
def test_the_order_of_trial_rows_does_not_matter(rows, seed):
    names = ("trial_id", "attempt", "state", "time_utc")

    def resolved(some):
        return latest.latest_trials(
            pa.table({name: [row[at] for row in some] for at, name in enumerate(names)})
        ).to_pylist()

    best = {
        name: max(
            (row for row in rows if row[0] == name),
            key=lambda row: (row[1], row[2] != "RUNNING", row[3]),
        )
        for name in {row[0] for row in rows}
    }
    expected = [dict(zip(names, best[name], strict=True)) for name in sorted(best)]
    assert resolved(random.Random(seed).sample(rows, len(rows))) == resolved(rows) == expected
