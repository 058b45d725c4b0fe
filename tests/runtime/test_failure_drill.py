"""Real failures on real Ray: their kinds, and a search that continues or stops by their policy."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, write

from attnfd_ray.store.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

FAULTS = ["none", "nan", "oom", "raise", "kill_once", "kill"]
METHOD = """
import os, signal, time
from pathlib import Path
import torch
from attnfd_ray.distill.attnfd import AttnFD

HERE = Path(__file__).parent


class Faulty(AttnFD):
    class Settings(AttnFD.Settings):
        name: str
        fault: str = "none"

    forwards = 0

    def forward(self, student, teacher, labels):
        self.forwards += 1
        if self.settings.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        terms = super().forward(student, teacher, labels)
        if self.forwards <= 3:  # an epoch
            return terms
        match self.settings.fault:
            case "nan":
                return {name: term * float("nan") for name, term in terms.items()}
            case "oom":
                torch.empty(2**50)
            case "raise":
                raise ZeroDivisionError("on purpose")
            case "kill_once" if not (HERE / "killed").exists():
                (HERE / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return terms
"""
# the second time: one hangs until the search has ended, the other fails as soon as that one runs
STOPPING = """
        if self.settings.fault == "kill":
            (HERE / "runs").touch()
            time.sleep(3600)
        while self.settings.fault == "raise":
            time.sleep(0.1)
            if (HERE / "runs").exists():
                raise ZeroDivisionError("again")
        return super().forward(student, teacher, labels)
"""


def by_fault(store: str) -> dict[str, dict[str, Any]]:
    """Return the sampled trials and the file as written by their fault."""
    rows = Store.open(store, create=False).trials().to_pylist()
    return {
        json.loads(row["searched_json"])["method.fault"]: row
        for row in rows
        if row["role"] in ("trial", "as_written")
    }


def test_each_failure_has_its_kind_and_the_search_continues_or_stops_by_its_policy(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "faulty.py").write_text(METHOD, encoding="utf-8")
    tree["method"] = {"name": "faulty:Faulty", "layers": ["aspp"], "reduction_ratio": 4}
    tree["train"]["epochs"] = 2
    tree["search"] = {"method.fault": {"choice": FAULTS}}
    tree["tune"] = {"trials": len(FAULTS), "sampler": "grid", "early_stopping": "none"}
    done = attnfd_ray("tune", write(tree, tmp_path), PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    rows = by_fault(tree["store"])
    assert {
        fault: (row["state"], row["failure_kind"], row["attempt"]) for fault, row in rows.items()
    } == {
        "none": ("COMPLETE", None, 1),
        "nan": ("INFEASIBLE", "NAN", 1),
        "oom": ("INFEASIBLE", "OOM", 1),
        "raise": ("FAILED", "USER_CODE", 1),
        "kill_once": ("COMPLETE", None, 2),
        "kill": ("FAILED", "WORKER_LOST", 3),
    }
    host = socket.gethostname()
    runs = Path(tree["store"]) / "runs"
    logs = {fault: runs / row["trial_id"] / "failure.log" for fault, row in rows.items()}
    texts = {fault: row["failure_text"] for fault, row in rows.items()}
    assert texts["raise"] == (
        f"ZeroDivisionError: on purpose (faulty.py:30 in forward, on {host}); traceback: "
        f"{logs['raise']}"
    )
    assert "DefaultCPUAllocator: can't allocate memory" in texts["oom"]
    assert texts["oom"].endswith(f" (faulty.py:28 in forward, on {host}); traceback: {logs['oom']}")
    assert texts["nan"].startswith("the loss is not finite after step 6 of 6 (")
    assert texts["kill"].startswith(
        f"its workers died 3 times without finishing an epoch; their logs: {host}:/"
    )
    assert [fault for fault in FAULTS if logs[fault].exists()] == ["oom", "raise"]
    assert 'faulty.py", line 30, in forward' in logs["raise"].read_text()
    epochs = (
        Store.open(tree["store"], create=False).epochs(rows["kill_once"]["trial_id"]).to_pylist()
    )
    assert sorted((epoch["epoch"], epoch["attempt"]) for epoch in epochs) == [(1, 1), (2, 2)]

    head = METHOD.partition("        self.forwards += 1\n")[0]
    (tmp_path / "faulty.py").write_text(head + STOPPING, encoding="utf-8")
    command = ("tune", tmp_path / "tiny.yaml", "--retry", "failed")
    stopped = attnfd_ray(*command, "--set", "tune.max_failures=1", PYTHONPATH=str(tmp_path))
    assert stopped.returncode == 1
    (line,) = stopped.stderr.splitlines()
    raised = rows["raise"]["trial_id"]
    assert line.startswith(
        "stopped: a trial failed (1 USER_CODE), which is tune.max_failures; the first, "
        f"{raised}: ZeroDivisionError: again (faulty.py:"
    )
    assert (
        "; fix that and run `attnfd-ray tune FILE --retry failed`, or allow more with --set "
        "tune.max_f" in line
    )
    rows = by_fault(tree["store"])
    assert (rows["raise"]["state"], rows["raise"]["attempt"]) == ("FAILED", 2)
    assert (rows["kill"]["state"], rows["kill"]["attempt"]) == ("RUNNING", 4)

    fixed = "        return super().forward(student, teacher, labels)\n"
    (tmp_path / "faulty.py").write_text(head + fixed, encoding="utf-8")
    again = attnfd_ray(*command, PYTHONPATH=str(tmp_path))
    assert (again.returncode, again.stderr) == (0, "")
    rows = by_fault(tree["store"])
    states = {fault: row["state"] for fault, row in rows.items()}
    assert states == dict.fromkeys(FAULTS, "COMPLETE") | {"nan": "INFEASIBLE", "oom": "INFEASIBLE"}
    assert (rows["none"]["attempt"], rows["raise"]["attempt"], rows["kill"]["attempt"]) == (1, 3, 5)
