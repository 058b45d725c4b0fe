"""Ctrl-C while `attnfd-ray data check` reads with several processes, run as a user does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from attnfd_ray.data.generate.toyscenes import write_toyscenes

TIMEOUT_S = 60  # on a busy machine, torch is imported first
SOON_S = 8  # it takes less than 1 s; after 10 s, a check that hangs is killed

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
        deadline = time.monotonic() + TIMEOUT_S
        while not has_come(moment, tmp_path, process.pid):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGINT)
        # returns when all processes have closed their pipes
        out, err = process.communicate(timeout=SOON_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out) == (130, "")
    assert err.startswith("\ninterrupted; ")
    assert err.count("\n") == 2, err
    assert group(process.pid) == []


def has_come(moment: str, directory: Path, leader: int) -> bool:
    if moment == "while they read":
        return any(directory.glob("reads-*"))
    return len(group(leader)) > 1


def group(leader: int) -> list[str]:
    """Return the running processes of a group, by Linux's proc(5)."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, found, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(found) == leader and state != "Z":
            alive.append(path.parent.name)
    return alive
