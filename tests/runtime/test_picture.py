"""`attnfd-ray picture`: predictions are those that were scored, and stores are not trusted."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from command_line import write
from PIL import Image

from attnfd_ray.analysis.summary import summarise
from attnfd_ray.cli import cli
from attnfd_ray.config.loader import load_experiment
from attnfd_ray.config.overrides import baseline_of, teacher_experiment
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.checker.check import quick_check
from attnfd_ray.data.datasets.base import open_dataset
from attnfd_ray.data.generate.toyscenes import write_toyscenes
from attnfd_ray.errors import CheckpointError, DataError, StoreError
from attnfd_ray.models import model_hash
from attnfd_ray.runtime.jobs.messages import Job
from attnfd_ray.runtime.jobs.worker import Worker
from attnfd_ray.runtime.picture import _compare, draw
from attnfd_ray.runtime.stored_networks import NAMES, StoredNetworks
from attnfd_ray.store.rows import TrialRow
from attnfd_ray.store.store import Store
from attnfd_ray.train.metrics import confusion, scores

Change = Callable[..., None]


def trained(tree: dict[str, Any], root: Path) -> None:
    """Fill the tree's store with a teacher, a baseline and a trial, one epoch each."""
    settings = load_experiment(write(tree, root))
    alone = baseline_of(settings)
    assert alone is not None
    Store.open(settings.store, create=True)
    worker = Worker(torch.device("cpu"), lambda *_: None)
    known: dict[str, Any] = {"kind": "train", "data_hash": quick_check(settings.data).data_hash}

    def do(trial_id: str, role: Any, run: ExperimentSettings, **others: Any) -> None:
        worker.do(
            Job(trial_id=trial_id, role=role, settings_json=run.model_dump_json(), **known | others)
        )

    do("teacher-1", "teacher", teacher_experiment(settings), teacher_hash="abc")
    taught = {
        "teacher_file": f"{settings.store}/runs/teacher-1/best.safetensors",
        "teacher_hash": "abc",
    }
    do("b1", "baseline", alone, **taught)
    do("t1", "trial", settings, searched={"method.loss_weight": 2.0}, **taught)
    worker.close()


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    root = tmp_path_factory.mktemp("search")
    small = {"backbone": "resnet18", "width": 0.125}
    tree = {
        "experiment": "tiny",
        "data": {"name": "toyscenes", "root": str(scenes), "crop": [32, 32], "eval_flip": True},
        "teacher": {**small, "width": 0.25, "train": {"epochs": 1, "lr": 0.05}},
        "student": small,
        "method": {"name": "attnfd", "layers": ["stage4"], "reduction_ratio": 4},
        "optim": {"lr": 0.02},
        "train": {"epochs": 1, "batch_size": 8},
        "store": str(root / "results"),
    }
    trained(tree, root)
    return root / "results"


@pytest.fixture
def store(search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(search, "results")
    return Store.open("results", create=False)


@pytest.fixture
def change(store: Store) -> Change:
    """Append a trial's row with other values: the later attempt counts."""

    def change(trial_id: str, **values: Any) -> None:
        row = store.trial(trial_id)
        assert row is not None
        row |= {"attempt": row["attempt"] + 1, "versions": {}} | values
        store.append_trial(TrialRow(**row))

    return change


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["picture", *map(str, arguments)], catch_exceptions=False)


def picture_of(png: bytes) -> Image.Image:
    return Image.open(BytesIO(png))


def test_the_command_draws_a_row_per_image_and_prints_the_networks(store: Store) -> None:
    done = run("results", "-o", "demo.png", "--images", 3)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "demo.png: 3 images; baseline, best config, teacher\n"
    picture = Image.open("demo.png")
    assert picture.format == "PNG"
    assert picture.width == 6 + 5 * 262
    assert 3 * 262 < picture.height < 4 * 262
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


def test_the_same_store_gives_the_same_picture(store: Store) -> None:
    assert draw(store, num_images=2).png == draw(store, num_images=2).png


def test_drawn_predictions_have_the_score_in_the_store(store: Store) -> None:
    shown = summarise(store).shown
    assert shown is not None
    stored = StoredNetworks(store, shown.protocols[0], own_code=False)
    networks = [stored.load(name, num_classes=12) for name in NAMES]
    settings = ExperimentSettings.model_validate_json(store.trial("t1")["config_json"])  # type: ignore[index]
    dataset = open_dataset(settings.data, split="val")
    rows = [_compare(dataset, index, networks, settings.data) for index in range(len(dataset))]
    for column, network in enumerate(networks, start=1):
        pairs = [
            (torch.tensor(row.labels[0]).long(), torch.tensor(row.labels[column]).long())
            for row in rows
        ]
        counts = sum(confusion(label, predicted, num_classes=12) for label, predicted in pairs)
        # the memory layout differs from training, which may change a pixel or two at a border
        assert scores(counts).miou == pytest.approx(network.miou, abs=0.002)  # type: ignore[arg-type]


def test_weights_that_were_not_kept_are_a_line_and_the_others_are_drawn(store: Store) -> None:
    (store.root / "runs/t1/best.safetensors").unlink()
    done = run("results", "-o", "demo.png")
    assert done.exit_code == 0
    assert (
        done.stderr
        == "not drawn: best config: the weights of trial t1 were not kept (see tune.keep_weights)\n"
    )
    assert done.stdout == "demo.png: 4 images; baseline, teacher\n"


def test_without_any_weights_there_is_no_picture(store: Store) -> None:
    shutil.rmtree(store.root / "runs")
    with pytest.raises(
        StoreError, match=r"results: there are no weights to draw with .*baseline: the weights"
    ):
        run("results", "-o", "demo.png")
    assert not Path("demo.png").exists()


def test_an_empty_store_has_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no trials yet"):
        draw(Store.open(tmp_path / "empty", create=True), num_images=1)


@pytest.mark.parametrize("way", ["a path", "a link"])
def test_weights_outside_the_store_are_not_read(
    store: Store, change: Change, tmp_path: Path, way: str
) -> None:
    inside, outside = store.root / "runs/t1/best.safetensors", tmp_path / "elsewhere.safetensors"
    inside.rename(outside)
    if way == "a link":
        inside.symlink_to(outside)
    else:
        change("t1", checkpoint=str(outside))
    assert draw(store, num_images=1).missing == [
        "best config: the weights of trial t1 are outside the store and are not read"
    ]


def test_a_file_without_a_network_is_an_error_of_one_line(store: Store) -> None:
    (store.root / "runs/t1/best.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"best\.safetensors"):
        draw(store, num_images=1)


def test_code_that_a_store_names_is_imported_only_if_the_user_allows_it(
    store: Store, change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_users_own.py").write_text(
        "from attnfd_ray.data.datasets.voc import ToyScenes\nclass Scenes(ToyScenes):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    row = store.trial("t1")
    assert row is not None
    change("t1", config_json=row["config_json"].replace('"toyscenes"', '"a_users_own:Scenes"'))
    with pytest.raises(
        StoreError, match=r"trial t1 names a user's own code \(a_users_own:Scenes\).*--own-code"
    ):
        draw(store, num_images=1)
    assert "a_users_own" not in sys.modules
    assert draw(store, num_images=1, own_code=True).shown == list(NAMES)
    monkeypatch.delitem(sys.modules, "a_users_own")


@pytest.mark.parametrize("config", ["{", "[]", '{"data": {"name": "toyscenes"}}', '{"data": 3}'])
def test_settings_that_cannot_be_used_are_an_error_of_one_line(
    store: Store, change: Change, config: str
) -> None:
    change("t1", config_json=config)
    with pytest.raises(StoreError, match="results: the settings of trial t1 cannot be") as caught:
        draw(store, num_images=1)
    assert "\n" not in str(caught.value)


def test_other_images_than_were_scored_are_refused(
    store: Store, tmp_path: Path, scenes: Path
) -> None:
    write_toyscenes(tmp_path / "others", size=32, train=24, val=6, seed=1)
    with pytest.raises(
        DataError, match=r"others: has other files than trial t1 was scored on .*--data-root DIR"
    ):
        draw(store, num_images=1, data_root=str(tmp_path / "others"))
    shutil.copytree(scenes, tmp_path / "moved")
    assert draw(store, num_images=1, data_root=str(tmp_path / "moved")).num_images == 1


def test_a_teacher_of_a_file_is_drawn_if_it_is_that_of_the_trials(
    store: Store, change: Change, tmp_path: Path
) -> None:
    file = tmp_path / "teacher.safetensors"
    (store.root / "runs/teacher-1/best.safetensors").rename(file)
    shutil.rmtree(store.root / "runs/teacher-1")
    for part in (store.root / "trials").glob("teacher-1.*"):
        part.unlink()
    for trial_id in ("b1", "t1"):
        change(trial_id, teacher_hash=model_hash(file)[:16])
    drawn = draw(store, num_images=1)
    assert drawn.missing == [
        "teacher: its file is not part of the store; give it with --teacher FILE"
    ]
    assert draw(store, num_images=1, teacher_file=file).shown == list(NAMES)
    other = store.root / "runs/b1/best.safetensors"
    with pytest.raises(CheckpointError, match="is not the teacher of trial t1"):
        draw(store, num_images=1, teacher_file=other)


def test_a_name_without_png_is_refused(store: Store) -> None:
    done = run("results", "-o", "demo.jpg")
    assert done.exit_code == 2
    assert "needs a name that ends in .png" in done.stderr


def test_a_path_that_cannot_be_written_is_an_error_of_one_line(store: Store) -> None:
    with pytest.raises(DataError, match=r"nowhere/demo\.png: cannot be written"):
        run("results", "-o", "nowhere/demo.png")


def test_an_experiment_with_only_a_teacher_is_drawn_with_that(store: Store) -> None:
    for name in ("b1", "t1"):
        for part in (store.root / "trials").glob(f"{name}.*"):
            part.unlink()
    drawn = draw(store, num_images=1)
    assert drawn.shown == ["teacher"]
    assert drawn.missing == [
        f"{name}: no trial of it has had its full budget yet"
        for name in ("baseline", "best config")
    ]
    assert dataclasses.asdict(drawn)["num_images"] == 1
