"""`attnfd-ray confirm` on real Ray after a real search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, write

from attnfd_ray.cli.progress_text import TextProgress
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.runtime.commands import tune
from attnfd_ray.runtime.confirm import confirm
from attnfd_ray.store.store import Store


def rows(store: str, role: str) -> list[dict[str, Any]]:
    return [
        row for row in Store.open(store, create=False).trials().to_pylist() if row["role"] == role
    ]


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_leader_and_the_baseline_run_again_over_fresh_seeds_once(
    attnfd_ray: CommandLine,
    tree: dict[str, Any],
    settings: Callable[[], ExperimentSettings],
    tmp_path: Path,
) -> None:
    tree["train"]["epochs"] = 1
    tree["search"] = {"method.loss_weight": {"choice": [0.5, 2.0]}}
    tree["tune"] = {"trials": 1, "sampler": "grid"}
    file = write(tree, tmp_path)
    assert attnfd_ray("tune", file).returncode == 0

    done = attnfd_ray("confirm", file, "--top", 1, "--seeds", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Confirmed: 1 leader and the baseline over 2 fresh seeds\n" in done.stdout
    assert "tiny.search1 tried 1 config" in " ".join(done.stdout.split())
    assert any(
        line.rstrip().endswith(("better", "worse", "tie")) for line in done.stdout.splitlines()
    )
    (leader,), (baseline,) = rows(tree["store"], "as_written"), rows(tree["store"], "baseline")
    again = rows(tree["store"], "confirm")
    assert {row["trial_id"]: (row["config_hash"], row["seed"], row["state"]) for row in again} == {
        f"tiny.search1.confirm-{row['config_hash'][:8]}-s{seed}": (
            row["config_hash"],
            seed,
            "COMPLETE",
        )
        for row in (leader, baseline)
        for seed in (1_000_001, 1_000_002)
    }
    assert {(row["search_id"], row["epochs_done"], row["teacher_hash"]) for row in again} == {
        ("tiny.search1", 1, leader["teacher_hash"])
    }
    left = [path.name for path in Path(tree["store"]).glob("runs/*.confirm-*/*")]
    assert left == [], "runs of confirm keep no weights"

    lines: list[str] = []
    result = confirm(settings(), TextProgress(lines.append, every_epoch=True), top=1, seeds=2)
    assert (result.id, lines) == (
        "tiny.search1",
        ["tiny.search1 is confirmed: nothing left to run"],
    )
    # runs of confirm are not trials of the search
    tune(settings(), TextProgress(lines.append, every_epoch=True))
    assert lines[1:] == ["tiny.search1 is complete: nothing left to try"]
    assert rows(tree["store"], "confirm") == again


def test_without_a_search_there_is_nothing_to_confirm(
    settings: Callable[[], ExperimentSettings],
) -> None:
    with pytest.raises(
        ConfigError, match=r"no search of 'tiny' was started there; run `attnfd-ray tune` with this"
    ):
        confirm(settings(), TextProgress(print, every_epoch=True), top=1, seeds=2)
