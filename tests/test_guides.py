"""The Python and SQL of docs/ runs as it stands there: parts of one's own, and queries."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
import torch
import yaml
from PIL import Image

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.datasets.base import open_dataset
from attnfd_ray.distill.method import build_method
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.models import TapRecorder, build_model, save_model
from attnfd_ray.store.rows import EpochRow, TrialRow
from attnfd_ray.store.store import Store
from attnfd_ray.terms import TrialState

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
STORE = ROOT / "tests" / "golden" / "store_v1"
NUM_CLASSES = 3
FENCE = r"^```{language}(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$"


def blocks(page: str, language: str) -> list[tuple[str, str]]:
    """Return (title, code) of the blocks of a language; without a title it is empty."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.finditer(FENCE.replace("{language}", language), text, re.M | re.S)
    return [(match["title"] or "", match["code"]) for match in found]


def titled(page: str, language: str, title: str) -> str:
    return dict(blocks(page, language))[title]


@pytest.fixture
def mypackage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put every file of the guides that is called mypackage/... on the path."""
    for page in DOCS.glob("own_*.md"):
        for title, code in blocks(page.name, "python"):
            if title.startswith("mypackage/"):
                file = tmp_path / "path" / title
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "path")


def experiment(**sections: Any) -> ExperimentSettings:
    around = {
        "experiment": "guide",
        "data": {"name": "voc", "root": "/d", "crop": [33, 33]},
        "teacher": {"width": 0.25, "checkpoint": "/t.safetensors"},
        "student": {"width": 0.125},
        "method": {"name": "kd"},
    }
    return ExperimentSettings.model_validate(around | sections)


def terms_of(settings: ExperimentSettings) -> dict[str, torch.Tensor]:
    """Return what the method of an experiment says of one batch."""
    student = build_model(settings.student, num_classes=NUM_CLASSES)
    assert settings.teacher is not None
    teacher = FrozenTeacher(build_model(settings.teacher, num_classes=NUM_CLASSES))
    method, taps = build_method(settings, student, teacher)
    teacher.set_taps(taps)
    recorder = TapRecorder(student, taps)
    images = torch.rand((2, 3, 33, 33), generator=torch.Generator().manual_seed(0))
    student(images)
    labels = torch.zeros((2, 33, 33), dtype=torch.int64)
    terms: dict[str, torch.Tensor] = method(recorder.features, teacher(images), labels)
    return terms


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_python_on_a_page_is_python(page: str) -> None:
    for _, code in blocks(page, "python"):
        ast.parse(code)


@pytest.mark.usefixtures("mypackage")
def test_the_guides_method_of_layers_has_a_term_for_each_layer_that_learns() -> None:
    method = yaml.safe_load(titled("own_method.md", "yaml", "experiment.yaml"))["method"]
    terms = terms_of(experiment(method=method))
    assert list(terms) == [f"{method['name']}/{layer}" for layer in method["layers"]]
    assert all(term.isfinite() and term > 0 and term.requires_grad for term in terms.values())


def test_the_guides_batch_sum_outside_of_training_is_the_sum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "example.py").write_text(titled("own_method.md", "python", "example.py"))
    runpy.run_path(str(tmp_path / "example.py"))
    assert capsys.readouterr().out == "96.0\n"


@pytest.mark.usefixtures("mypackage")
def test_the_guides_dataset_reads_images_and_masks(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for folder in (split, f"{split}_masks"):
            (tmp_path / "tiles" / folder).mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "tiles" / split / "a.jpg")
        mask = Image.new("L", (8, 6), 1)
        mask.putpixel((0, 0), 2)
        mask.putpixel((1, 0), 0)
        mask.save(tmp_path / "tiles" / f"{split}_masks" / "a.png")
    shown = yaml.safe_load(titled("own_dataset.md", "yaml", "tiles.yaml"))
    data = experiment(data=shown["data"] | {"root": str(tmp_path / "tiles")}).data
    for split in (data.train_split, data.val_split):
        dataset = open_dataset(data, split=split)
        image, label = dataset.read(0)
        assert (dataset.ids, image.shape) == (["a"], (3, 6, 8))
        assert label[0, :3].tolist() == [1, 255, 0]


@pytest.mark.usefixtures("mypackage")
def test_the_guides_network_learns_from_another_one() -> None:
    shown = yaml.safe_load(titled("own_network.md", "yaml", "experiment.yaml"))
    settings = experiment(**shown)
    network = build_model(settings.student, num_classes=NUM_CLASSES)
    assert set(network.taps) == set(type(network).tap_names)
    assert network(torch.zeros(2, 3, 40, 56)).shape == (2, NUM_CLASSES, 40, 56)
    assert sum(parameter.numel() for parameter in network.backbone_parameters()) > 0
    assert list(terms_of(settings)) == ["kd/logits"]


def test_the_student_is_loaded_as_the_page_on_networks_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = experiment().student
    (code,) = [code for _, code in blocks("networks.md", "python")]
    file = re.search(r'"(results/\S+)"', code)
    assert file
    save_model(
        build_model(settings, num_classes=NUM_CLASSES),
        tmp_path / file[1],
        settings=settings,
        num_classes=NUM_CLASSES,
        class_names=("a", "b", "c"),
        extra={},
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(code)
    runpy.run_path("example.py")
    assert capsys.readouterr().out == "torch.Size([1, 3, 256, 256]) ('a', 'b', 'c')\n"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be where `results` is a store of an older version that a trial of today was added to.

    Its first attempt was killed in epoch 2, and its second one is not over.
    """
    shutil.copytree(STORE, tmp_path / "results")
    store = Store.open(tmp_path / "results", create=False)
    whose = {"experiment": "guide", "trial_id": "guide.train1", "role": "run", "seed": 1}
    for attempt, epochs in ((1, (1, 2)), (2, (2,))):
        row: dict[str, Any] = whose | {"method": "kd", "attempt": attempt}
        store.append_trial(TrialRow(**row, state=TrialState.RUNNING))
        for epoch in epochs:
            norms = {"cross_entropy": 0.5, "distillation": 1.5}
            values = {"val_miou": 0.6, "images_per_s": 9.0, "gradient_norms": norms}
            store.append_epoch(EpochRow(**row, **values, epoch=epoch, epochs_total=3))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", ["store.md", "tutorial.md"])
def test_a_query_in_python_prints_rows(
    page: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = [code for _, code in blocks(page, "python")]
    assert queries
    for code in queries:
        (results / "query.py").write_text(code)
        runpy.run_path("query.py")
        assert "trial_id" in capsys.readouterr().out


@pytest.mark.usefixtures("results")
def test_a_query_in_sql_runs_and_the_views_have_each_trial_and_epoch_once() -> None:
    connection = duckdb.connect()
    (views, *queries) = [code for _, code in blocks("store.md", "sql")]
    connection.execute(views)
    for view, key in (("trials", "trial_id"), ("epochs", "trial_id || '/' || epoch")):
        num_rows, num_keys = connection.execute(
            f"SELECT count(*), count(DISTINCT {key}) FROM {view}"
        ).fetchall()[0]
        assert num_rows == num_keys > 0
    assert len(queries) >= 4
    for query in queries:
        for statement in filter(str.strip, query.split(";")):
            found = connection.execute(statement).fetchall()
            if "ratio" in statement:
                assert found == [("guide.train1", 1, 3.0), ("guide.train1", 2, 3.0)]
