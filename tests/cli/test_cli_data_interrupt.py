"""Ctrl-C while `attnfd-ray data check` reads with several processes: run as a user runs it, in a
process of its own.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from attnfd_ray.data.generate.toyscenes import write_toyscenes

PATIENCE_S = 60  # torch is imported first, on a busy machine
SOON_S = 8  # it takes less than one, and a check that is not in good order is ended after ten

STUCK = """
import time
from pathlib import Path

from attnfd_ray.data.datasets.voc import ToyScenes

class Stuck(ToyScenes):
    def read(self, index):
        Path(f"reads-{index}").touch()
        time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["as processes start", "while they read"])
def test_ctrl_c_ends_a_check_at_once_with_all_its_processes_and_no_traceback(
    tmp_path: Path, moment: str
) -> None:
    write_toyscenes(tmp_path / "toy", train=64, val=1)
    (tmp_path / "own_stuck.py").write_text(STUCK)
    tree = {
        "experiment": "e",
        "data": {"name": "own_stuck:Stuck", "root": "toy", "crop": [48, 48]},
        "student": {"width": 0.125},
        "method": {"name": "none"},
    }
    (tmp_path / "exp.yaml").write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "attnfd_ray", "data", "check", "exp.yaml", "--full"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (
            list(tmp_path.glob("reads-*"))
            if moment == "while they read"
            else len(group(process.pid)) > 1
        ):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(
            timeout=SOON_S
        )  # ends when the last of them has let go of its pipes
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out) == (130, "")
    assert err.startswith("\ninterrupted; ")
    assert err.count("\n") == 2, err
    assert group(process.pid) == []


def group(leader: int) -> list[str]:
    """Return the processes of a group that are not over, by Linux's proc(5)."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, found, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # over by now
        if int(found) == leader and state != "Z":
            alive.append(path.parent.name)
    return alive
