"""The pages of evidence say what the stores beside them hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnfd_ray.config.loader import load_experiment
from attnfd_ray.store.store import Store
from benchmarks import pages

STORES = sorted(path.parent for path in pages.EVIDENCE.glob("*/attnfd_store.json"))
SPACES = [*sorted(pages.EVIDENCE.glob("*.yaml")), *sorted((pages.HERE / "why").glob("*.yaml"))]


def test_there_is_evidence() -> None:
    assert len(STORES) >= 2
    assert len(SPACES) >= 4
    assert pages.HERE / "why_attnfd.md" in pages.pages()


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: page.name)
def test_every_table_of_a_page_is_what_its_store_gives(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert pages.written(text) == text


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_a_store_of_evidence_holds_finished_trials_and_no_weights(store: Path) -> None:
    trials = (
        Store.open(store, create=False)
        .trials(columns=["trial_id", "state", "config_json"])
        .to_pylist()
    )
    assert any(trial["state"] == "COMPLETE" for trial in trials)
    assert sorted({path.suffix for path in store.rglob("*") if path.is_file()}) == [
        ".json",
        ".parquet",
    ]
    for trial in trials:
        assert "/home/" not in trial["config_json"]
        assert "/tmp/" not in trial["config_json"]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_every_space_of_the_evidence_can_be_run(
    space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMVID_ROOT", "/data/CamVid")
    assert load_experiment(space).search
