"""BatchNorm over workers.

Training it needs a CUDA device; everything before that is tested here.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from train_runs import differing_paths, experiment, make_run, plain, train

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.data.loading.loader import val_batches
from attnfd_ray.models import build_model
from attnfd_ray.models.deeplabv3plus import DeepLabV3Plus
from attnfd_ray.train import distributed
from attnfd_ray.train.distributed import convert_sync_batchnorm


class TapsOnNorms(DeepLabV3Plus):
    """A network of a user, with taps on BatchNorm itself."""

    def __init__(self, settings: ModelSettings, *, num_classes: int) -> None:
        super().__init__(settings, num_classes=num_classes)
        self.taps = {**self.taps, "aspp": "aspp.bn1"}


def norms(module: nn.Module) -> set[type]:
    return {
        type(child)
        for child in module.modules()
        if isinstance(child, nn.modules.batchnorm._BatchNorm)
    }


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)


def test_batchnorm_is_shared_between_workers_with_cuda_and_only_there(
    two_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return build_model(ModelSettings(width=0.125), num_classes=3)

    assert norms(convert_sync_batchnorm(make(), torch.device("cpu"))) == {nn.BatchNorm2d}
    shared = convert_sync_batchnorm(make(), torch.device("cuda"))
    assert norms(shared) == {nn.SyncBatchNorm}
    assert differing_paths(shared.state_dict(), make().state_dict()) == []
    assert convert_sync_batchnorm(shared, torch.device("cuda")) is shared
    monkeypatch.setattr(distributed, "world_size", lambda: 1)
    assert norms(convert_sync_batchnorm(make(), torch.device("cuda"))) == {nn.BatchNorm2d}


@pytest.fixture
def as_if_cuda(two_workers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(module: nn.Module, device: torch.device) -> nn.Module:
        return convert_sync_batchnorm(module, torch.device("cuda"))

    monkeypatch.setattr("attnfd_ray.train.build.convert_sync_batchnorm", convert)


def test_with_shared_batchnorm_taps_still_listen_and_everything_is_still_trained(
    as_if_cuda: None, toys: Path, tmp_path: Path
) -> None:
    arch = f"{__name__}:TapsOnNorms"
    method = {"name": "attnfd", "layers": ["aspp"], "teacher_gate": "random_frozen"}
    run = make_run(experiment(toys, student__arch=arch, method=method), tmp_path)
    assert norms(run.student) == {nn.SyncBatchNorm}
    assert norms(run.task.method.student_gates) == {nn.SyncBatchNorm}  # type: ignore[arg-type]
    assert not any(
        parameter.requires_grad for parameter in run.task.method.teacher_gates.parameters()
    )  # type: ignore[union-attr]
    assert run.teacher is not None
    assert norms(run.teacher) == {nn.BatchNorm2d}
    run.task.eval()  # in eval mode, SyncBatchNorm computes on any device
    images, labels = next(val_batches(run.val_set, run.settings.data, readers=run.readers))
    terms = run.task(
        images, labels, run.teacher(images), labelled_pixels=torch.tensor(1.0), image_share=1.0
    )
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    lost = [
        name
        for name, parameter in run.task.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    assert lost == []


def test_batchnorm_is_left_alone_where_the_settings_say_so(
    as_if_cuda: None, toys: Path, tmp_path: Path
) -> None:
    run = make_run(plain(toys, train__sync_batchnorm=False), tmp_path)
    assert norms(run.student) == {nn.BatchNorm2d}


def test_a_run_on_a_cpu_listens_to_a_norm_as_to_anything(toys: Path, tmp_path: Path) -> None:
    settings = experiment(
        toys, train__epochs=1, student__arch=f"{__name__}:TapsOnNorms", method__layers=["aspp"]
    )
    outcome, _ = train(settings, tmp_path)
    assert math.isfinite(outcome.last.train_loss)
