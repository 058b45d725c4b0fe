import threading

import pytest

from attnfd_ray.terms import TrialState


@pytest.fixture
def filled(store, epoch_row, trial_row):
    """Two trials, one ended after a second attempt and one still running."""
    for attempt, epochs in ((1, (1, 2, 3)), (2, (3, 4))):
        for epoch in epochs:
            store.append_epoch(epoch_row(epoch, attempt=attempt))
    store.append_epoch(epoch_row(1, trial_id="t0002"))
    store.append_epoch(epoch_row(2, trial_id="t0002"))
    store.append_trial(trial_row(TrialState.PRUNED, attempt=2))
    store.append_trial(trial_row(TrialState.RUNNING, trial_id="t0002"))
    return store


def parts(store):
    return sorted(path.name.rpartition("-")[0] for path in (store.root / "epochs").iterdir())


def test_compacting_changes_the_files_and_not_what_is_read(filled):
    before, attempt = filled.epochs(), filled.last_attempt("t0001")
    assert filled.compact() == 4
    assert parts(filled) == ["t0001.a002.all", "t0002.a001.e00001", "t0002.a001.e00002"]
    assert filled.epochs().equals(before)
    assert filled.last_attempt("t0001") == attempt
    assert filled.compact() == 0


def test_one_trial_can_be_compacted_alone(filled):
    assert filled.compact("t0002") == 1
    assert "t0002.a001.all" in parts(filled)
    assert "t0001.a002.e00004" in parts(filled)


def test_a_crash_between_writing_and_removing_shows_nothing_twice(filled, monkeypatch):
    before = filled.epochs()
    with monkeypatch.context() as patch:
        patch.setattr(
            "pathlib.Path.unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            filled.compact("t0001")
    assert len(parts(filled)) == 8
    assert filled.epochs().equals(before)
    filled.compact("t0001")
    assert filled.epochs().equals(before)
    assert len(parts(filled)) == 3


def test_a_trial_goes_on_after_it_was_compacted(filled, epoch_row):
    filled.compact("t0001")
    filled.append_epoch(epoch_row(5, attempt=3))
    assert filled.epochs("t0001")["epoch"].to_pylist() == [1, 2, 3, 4, 5]
    assert filled.compact("t0001") == 1


def test_reading_while_another_compacts_sees_every_row(store, epoch_row):
    for epoch in range(1, 41):
        store.append_epoch(epoch_row(epoch))
    done = threading.Event()

    def compact():
        store.compact("t0001")
        done.set()

    thread = threading.Thread(target=compact)
    thread.start()
    while not done.is_set():
        assert store.epochs("t0001").num_rows == 40
    thread.join()
    assert store.epochs("t0001").num_rows == 40
