"""A test split is scored once, after everything was chosen."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from PIL import Image
from train_runs import CPU, Callback, datasets, make_run, on_workers, plain

from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.datasets.base import open_dataset
from attnfd_ray.data.loading.loader import val_batches
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.models import build_model
from attnfd_ray.models.files import load_weights
from attnfd_ray.train.evaluate import evaluate, for_test, protocol
from attnfd_ray.train.records import Outcome


@pytest.fixture
def settings(toys: Path, tmp_path: Path) -> ExperimentSettings:
    """Return a run whose test split is four of the train images under another name."""
    root = tmp_path / "tested"
    shutil.copytree(toys, root)
    lists = root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    ids = (lists / "train.txt").read_text().split()
    (lists / "train.txt").write_text("\n".join(ids[4:]))
    (lists / "test.txt").write_text("\n".join(ids[:4]))
    return plain(root, data__test_split="test", data__val_limit=2)


def finished(settings: ExperimentSettings, directory: Path) -> Outcome:
    test_set = open_dataset(settings.data, split="test")
    return make_run(settings, directory, test_set=test_set).run(Callback())


def test_the_weights_of_the_best_epoch_are_scored_on_all_of_it(
    settings: ExperimentSettings, tmp_path: Path
) -> None:
    outcome = finished(settings, tmp_path / "run")
    network = build_model(settings.student, num_classes=12)
    load_weights(network, outcome.best_weights, num_classes=12)
    data = for_test(settings.data)
    test_set = open_dataset(data, split="test")
    batches = val_batches(test_set, data, readers=ReaderPool([test_set]))
    assert outcome.test == evaluate(
        network.to(memory_format=torch.channels_last),
        batches,
        num_classes=12,
        device=CPU,
        data=data,
        train=settings.train,
    )
    assert protocol(data) == "toyscenes/test/native/noflip"


def test_it_is_scored_once_and_moves_nothing(settings: ExperimentSettings, tmp_path: Path) -> None:
    without = make_run(settings, tmp_path / "without")
    assert without.run(Callback()).test is None
    with patch("attnfd_ray.train.trainer.for_test", wraps=for_test) as spy:
        test_set = open_dataset(settings.data, split="test")
        run = make_run(settings, tmp_path / "with", test_set=test_set)
        run.run(Callback())
    assert spy.call_count == 1
    weights = run.student.state_dict()
    assert all(
        torch.equal(tensor, weights[name]) for name, tensor in without.student.state_dict().items()
    )


def test_a_run_that_is_stopped_never_sees_it(settings: ExperimentSettings, tmp_path: Path) -> None:
    run = make_run(settings, tmp_path / "run", test_set=open_dataset(settings.data, split="test"))
    assert run.run(lambda record: True).test is None


def test_one_whose_labels_are_withheld_has_no_score(
    settings: ExperimentSettings, tmp_path: Path
) -> None:
    ids = (
        (Path(settings.data.root) / "VOCdevkit/VOC2012/ImageSets/Segmentation/test.txt")
        .read_text()
        .split()
    )
    for name in ids:
        mask = Path(settings.data.root) / f"VOCdevkit/VOC2012/SegmentationClass/{name}.png"
        with Image.open(mask) as image:
            blank = image.point(lambda _: 255)
        blank.save(mask)
    outcome = finished(settings, tmp_path / "run")
    assert outcome.test is None
    assert outcome.last.epoch == settings.train.epochs


@pytest.mark.slow
def test_two_workers_score_it_as_one_does(settings: ExperimentSettings, tmp_path: Path) -> None:
    outcomes = on_workers(2, tmp_path / "two", finished, settings, tmp_path / "run")
    assert outcomes[0].test is not None
    assert outcomes[0].test == outcomes[1].test
    alone = build_model(settings.student, num_classes=12)
    load_weights(alone, outcomes[0].best_weights, num_classes=12)
    data = for_test(settings.data)
    _, test_set = datasets(data_of(settings))
    batches = val_batches(test_set, data, readers=ReaderPool([test_set]))
    scored = evaluate(alone, batches, num_classes=12, device=CPU, data=data, train=settings.train)
    assert outcomes[0].test.miou == pytest.approx(
        scored.miou, abs=1e-3
    )  # a pixel or two where layouts round apart


def data_of(settings: ExperimentSettings) -> ExperimentSettings:
    return settings.model_copy(update={"data": for_test(settings.data)})
