"""Promise 6: a run exports a plain network.

Gates and connectors cost nothing at inference.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_runs import experiment, make_run, plain, train

from attnfd_ray.models import build_model, load_weights, read_header
from attnfd_ray.train.trainer import Trainer


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_an_exported_student_is_a_plain_network_with_the_same_logits(
    backbone: str, toys: Path, tmp_path: Path
) -> None:
    settings = experiment(toys, train__epochs=1, student__backbone=backbone)
    run = make_run(settings, tmp_path)
    outcome = run.run(lambda _: False)
    header = read_header(outcome.best_weights)
    assert header is not None
    assert header.settings == settings.student
    assert header.extra == {"epoch": "1"}
    network = build_model(header.settings, num_classes=header.num_classes)
    keys = load_file(outcome.best_weights).keys()
    assert keys == network.state_dict().keys()  # no gate, no connector
    assert len(header.class_names) == header.num_classes == 12
    load_weights(network, outcome.best_weights, num_classes=header.num_classes)
    images = torch.rand((2, 3, 40, 56), generator=torch.Generator().manual_seed(0))
    network.to(
        memory_format=torch.channels_last
    )  # as it was trained: another layout sums in another order
    with torch.no_grad():
        assert torch.equal(network.eval()(images), run.student.eval()(images))


def test_the_exported_student_is_that_of_the_best_epoch(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    original = Trainer.write

    def spy(run: Trainer, file: Path) -> None:
        original(run, file)
        header = read_header(file)
        assert header is not None
        if file == run.best_weights:
            kept.append(int(header.extra["epoch"]))

    monkeypatch.setattr(Trainer, "write", spy)
    outcome, records = train(plain(toys, train__epochs=5), tmp_path)
    best = 0.0
    improved = []
    for record in records:
        if record.val_miou > best:
            best = record.val_miou
            improved.append(record.epoch)
    assert kept == improved
    assert outcome.last.best_epoch == improved[-1]
