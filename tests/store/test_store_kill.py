"""A writer killed at any moment leaves no torn part, no lost row and no row twice."""

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from attnfd_ray.store.rows import EpochRow, TrialRow
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState

KILLS = int(os.environ.get("ATTNFD_STORE_KILLS", "30"))  # `make chaos` has more
# a writer is killed at most so many rows after its first, and at most so many seconds later
_MAX_ROWS = 9
_MAX_DELAY_S = 0.02
_CONTEXT = multiprocessing.get_context("forkserver")
# so that a writer starts within a hundredth of a second
_CONTEXT.set_forkserver_preload(["attnfd_ray.store.store"])
_WHO = {"experiment": "x", "trial_id": "t1", "seed": 1, "method": "none", "role": "run"}


def write_until_killed(root: Path, acknowledgements: Connection) -> None:
    """Write a run, epoch after epoch, and acknowledge each row; compact after every fourth."""
    store = Store.open(root, create=False)
    attempt = store.last_attempt("t1") + 1
    store.append_trial(TrialRow(**_WHO, attempt=attempt, state=TrialState.RUNNING))
    acknowledgements.send((attempt, 0))
    for epoch in range(1, 100_001):
        store.append_epoch(
            EpochRow(**_WHO, attempt=attempt, epoch=epoch, epochs_total=100_000, val_miou=0.5)
        )
        acknowledgements.send((attempt, epoch))
        if epoch % 4 == 0:
            store.compact("t1")


def received(acknowledgements: Connection) -> list[tuple[int, int]]:
    """Return every acknowledgement that a killed writer had sent."""
    found = []
    try:
        while acknowledgements.poll(0):
            found.append(acknowledgements.recv())
    except EOFError:
        pass
    return found


def check(root: Path, acknowledged: dict[int, int]) -> None:
    """Check what a reader sees; `acknowledged` is the newest attempt of each epoch."""
    for part in root.glob("*/[!.]*.parquet"):
        assert pq.read_table(part).num_rows > 0, "a torn part"
    store = Store.open(root, create=False)
    rows = store.epochs("t1", columns=["epoch", "attempt"]).to_pylist()
    found = {row["epoch"]: row["attempt"] for row in rows}
    assert len(rows) == len(found), "an epoch is shown twice"
    assert all(found.get(epoch, 0) >= attempt for epoch, attempt in acknowledged.items()), (
        "an acknowledged row is lost"
    )
    assert len(found) <= len(acknowledged) + 1, "more than the row in flight was not acknowledged"
    assert store.trials().num_rows == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sigkill(tmp_path: Path) -> None:
    root, rng = tmp_path / "results", random.Random(7)
    Store.open(root, create=True)
    acknowledged: dict[int, int] = {}
    for kill in range(1, KILLS + 1):
        receiver, sender = _CONTEXT.Pipe(duplex=False)
        writer = _CONTEXT.Process(target=write_until_killed, args=(root, sender))
        writer.start()
        sender.close()
        assert receiver.recv() == (kill, 0)
        acknowledged |= {
            epoch: attempt
            for attempt, epoch in (receiver.recv() for _ in range(rng.randint(0, _MAX_ROWS)))
        }
        time.sleep(rng.uniform(0, _MAX_DELAY_S))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(timeout=10)
        assert writer.exitcode == -signal.SIGKILL
        acknowledged |= {epoch: attempt for attempt, epoch in received(receiver)}
        check(root, acknowledged)
    assert Store.open(root, create=False).last_attempt("t1") == KILLS
    assert len(acknowledged) > 4, "no writer lived long enough to compact"
