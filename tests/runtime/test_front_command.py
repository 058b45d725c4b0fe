"""A search with several metrics on real Ray: sampler, store and report get what is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, write

from attnfd_ray.config.loader import load_experiment
from attnfd_ray.runtime.commands import _history
from attnfd_ray.search.plan import SearchPlan
from attnfd_ray.store.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def test_a_search_with_several_metrics_gets_what_was_measured_and_reports_its_front(
    attnfd_ray: CommandLine, tree: dict[str, Any], tmp_path: Path
) -> None:
    tree |= {
        "method": {"name": "none"},
        "teacher": None,
        "search": {"student.width": {"choice": [0.125, 0.25]}},
    }
    tree["train"]["epochs"] = 1
    tree["tune"] = {
        "metric": ["val_miou", "student_params", "latency_ms"],
        "trials": 2,
        "sampler": "nsga2",
    }
    tree["tune"]["duplicates"] = "skip"  # so that both widths run
    file = write(tree, tmp_path)
    done = attnfd_ray("tune", file, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    finished = {event["trial_id"]: event for event in events if event["event"] == "finished"}
    rows = {
        row["trial_id"]: row for row in Store.open(tree["store"], create=False).trials().to_pylist()
    }
    assert {row["state"] for row in rows.values()} == {"COMPLETE"}
    assert len({row["student_params"] for row in rows.values()}) == len(rows) == 2
    for name in ("student_params", "latency_ms"):
        assert {trial_id: event[name] for trial_id, event in finished.items()} == {
            trial_id: row[name] for trial_id, row in rows.items()
        }

    settings = load_experiment(file)
    history = _history(Store.open(tree["store"], create=False), "tiny.search1")
    assert [past.measures["latency_ms"] for past in history] == [
        row["latency_ms"] for row in rows.values()
    ]
    assert SearchPlan(settings, search_id="tiny.search1", history=history).counts().complete == 2

    (protocol,) = json.loads(attnfd_ray("report", tree["store"], "--json").stdout)["shown"][
        "protocols"
    ]
    (front,) = protocol["fronts"]
    assert len(front["lines"]) + front["num_dominated"] == 2
    assert front["latency_protocol"].startswith("32x32 fp32 on ")
    assert front["lines"][0]["trial_id"] == protocol["ranked"][0]["trial_id"]
