"""A step that hangs on real Ray: its job resumes once from the checkpoint, and then fails."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, write

from attnfd_ray.store.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

METHOD = """
import time
from pathlib import Path
from typing import Literal
from attnfd_ray.config.schema import MethodSettings
from attnfd_ray.distill.none import NoDistillation

HUNG = Path(__file__).with_name("hung")


class Sleepy(NoDistillation):
    class Settings(MethodSettings):
        name: str
        hangs: Literal["never", "once", "always"] = "never"

    def __init__(self, settings, networks):
        super().__init__()
        self.hangs, self.forwards = settings.hangs, 0

    def forward(self, student, teacher, labels):
        self.forwards += 1
        again = HUNG.with_suffix("." + self.hangs)
        # in the second epoch of three steps
        if self.hangs != "never" and self.forwards > 5 and not again.exists():
            again.touch()
            time.sleep(3600)
        if self.hangs == "always" and self.forwards == 1 and again.exists():
            time.sleep(3600)
        return {}
"""


def test_a_job_that_hangs_resumes_from_its_checkpoint_and_fails_the_second_time(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "sleepy.py").write_text(METHOD, encoding="utf-8")
    tree |= {"method": {"name": "sleepy:Sleepy"}, "teacher": None}
    tree["train"] |= {"epochs": 2, "step_patience_s": 8.0}
    tree["search"] = {"method.hangs": {"choice": ["never", "once", "always"]}}
    tree["tune"] = {"trials": 3, "sampler": "grid", "early_stopping": "none"}
    done = attnfd_ray("tune", write(tree, tmp_path), PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    store = Store.open(tree["store"], create=False)
    rows = {
        json.loads(row["searched_json"])["method.hangs"]: row for row in store.trials().to_pylist()
    }
    assert {
        hangs: (row["state"], row["failure_kind"], row["attempt"]) for hangs, row in rows.items()
    } == {
        "never": ("COMPLETE", None, 1),
        "once": ("COMPLETE", None, 2),
        "always": ("FAILED", "TIMEOUT", 2),
    }
    for hangs, epochs in (("once", [(1, 1), (2, 2)]), ("always", [(1, 1)])):
        found = store.epochs(rows[hangs]["trial_id"]).to_pylist()
        assert sorted((row["epoch"], row["attempt"]) for row in found) == epochs
    log = Path(tree["store"]) / "runs" / rows["always"]["trial_id"] / "failure.log"
    text = rows["always"]["failure_text"]
    # the first step after the checkpoint, compared with the steps before it
    assert text.startswith("step 4 was not over after 8")
    assert text.endswith(f" (sleepy.py:28 in forward, on {socket.gethostname()}); traceback: {log}")
    assert "time.sleep(3600)" in log.read_text()
