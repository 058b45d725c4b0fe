"""A writer killed at any moment leaves no torn part and loses nothing it was told is safe."""

import random
import signal
import subprocess
import sys
import time

from attnfd_ray.store.store import Store

WRITER = """
import sys
from attnfd_ray.store.rows import EpochRow
from attnfd_ray.store.store import Store

store = Store.open(sys.argv[1], create=True)
attempt = store.last_attempt("t1") + 1
for epoch in range(1, 100_001):
    store.append_epoch(EpochRow(experiment="x", trial_id="t1", seed=1, method="none", role="run", attempt=attempt,
                                epoch=epoch, epochs_total=100_000, val_miou=0.5, loss_terms={"ce": 1.0}))
    print(attempt, epoch, flush=True)
"""
KILLS = 5


def test_sigkill(tmp_path):
    rng = random.Random(7)
    told = set()
    for _ in range(KILLS):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "results"], stdout=subprocess.PIPE)
        assert writer.stdout
        first = writer.stdout.readline()  # started; from here on any moment will do
        time.sleep(rng.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        lines = [first, *writer.stdout.read().splitlines(keepends=True)]
        writer.wait()
        told |= {tuple(map(int, line.split())) for line in lines if line.endswith(b"\n")}

        store = Store.open(tmp_path / "results", create=False)
        newest = {epoch: attempt for attempt, epoch in sorted(told)}
        rows = store.epochs("t1", columns=["epoch", "attempt"]).to_pylist()
        found = {row["epoch"]: row["attempt"] for row in rows}
        assert len(rows) == len(found), "an epoch is shown twice"
        assert all(found[epoch] >= attempt for epoch, attempt in newest.items()), "an acknowledged row is lost"
        assert len(found) <= len(newest) + 1, "more than the row in flight was not acknowledged"
    assert store.last_attempt("t1") == KILLS
    assert len(told) > KILLS
