"""Teachers and students of other libraries: one optimiser step of AttnFD for each pair.

A small DeepLabV3+ of ours teaches networks of others, and one of them teaches ours.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from train_runs import experiment, make_run

from attnfd_ray.config.schema import ExperimentSettings, ModelSettings
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.models import SegmentationModel, build_model
from attnfd_ray.train.step import StepRunner

pytest.importorskip("segmentation_models_pytorch")


class OwnNetwork(SegmentationModel):
    """A user's own module, with only what the contract requires."""

    def __init__(self, settings: ModelSettings, *, num_classes: int) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, kernel_size=3, stride=4, padding=1)  # type: ignore[assignment]
        self.head = nn.Conv2d(8, num_classes, kernel_size=1)
        self.taps = {"stage4": "backbone", "decoder": "backbone", "logits": "head"}

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images_NCHW).relu())
        return F.interpolate(logits, size=images_NCHW.shape[-2:], mode="bilinear")


STUDENTS: dict[str, dict[str, Any]] = {
    "cnn of smp": {"arch": "smp/DeepLabV3Plus", "backbone": "resnet18"},
    "transformer of smp": {"arch": "smp/Segformer", "backbone": "mit_b0"},
    "cnn of torchvision": {"arch": "torchvision/lraspp_mobilenet_v3_large"},
    "module of a user's own": {"arch": f"{__name__}:OwnNetwork"},
}


def step(
    settings: ExperimentSettings, directory: Path, **others: Any
) -> tuple[dict[str, float], Any]:
    """Run one optimiser step; return its loss terms and the run."""
    run = make_run(settings, directory, **others)
    run.task.train()
    stepper = StepRunner(
        run.task,
        run.teacher,
        run.optimizer,
        run.scaler,
        settings,
        device=torch.device("cpu"),
        total=1,
    )
    rng = torch.Generator().manual_seed(0)
    images, labels = (
        torch.randn((2, 3, 33, 33), generator=rng),
        torch.randint(6, (2, 33, 33), generator=rng),
    )
    terms, _ = stepper.epoch([(images, labels)], first_step=0)
    return terms, run


@pytest.mark.parametrize("student", STUDENTS)
def test_a_student_of_any_family_learns_from_a_teacher_of_ours(
    student: str, toys: Path, tmp_path: Path
) -> None:
    settings = experiment(toys, student=STUDENTS[student], train__batch_size=2)
    before = make_run(settings, tmp_path / "before").student.state_dict()
    terms, run = step(settings, tmp_path / "run")
    assert sorted(terms) == ["attnfd/decoder", "attnfd/stage4", "cross_entropy"]
    assert all(math.isfinite(term) and term > 0 for term in terms.values())
    after = run.student.state_dict()
    moved = [
        name
        for name, _ in run.student.named_parameters()
        if not torch.equal(after[name], before[name])
    ]
    assert len(moved) > len(list(run.student.parameters())) // 2


def test_a_teacher_of_another_family_teaches_a_student_of_ours(toys: Path, tmp_path: Path) -> None:
    teacher = {"arch": "smp/Segformer", "backbone": "mit_b0"}
    settings = experiment(
        toys, teacher={**teacher, "checkpoint": "/no/such.pt"}, train__batch_size=2
    )
    torch.manual_seed(5)
    network = build_model(ModelSettings.model_validate(teacher), num_classes=6)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    terms, run = step(settings, tmp_path, teacher=FrozenTeacher(network))
    assert all(math.isfinite(term) and term > 0 for term in terms.values())
    assert all(
        torch.equal(tensor, before[name])
        for name, tensor in run.teacher.network.state_dict().items()
    )


def test_modules_are_compared_by_their_paths(toys: Path, tmp_path: Path) -> None:
    """A module path of one network does not exist in the other, unless both are the same."""
    network = {"arch": "smp/Unet", "backbone": "resnet18"}
    settings = experiment(
        toys,
        student=network,
        teacher={**network, "checkpoint": "/no/such.pt"},
        method={"name": "attnfd", "layers": ["encoder.layer2", "encoder[4]"]},
        train__batch_size=2,
    )
    torch.manual_seed(5)
    teacher = FrozenTeacher(build_model(ModelSettings.model_validate(network), num_classes=6))
    terms, _ = step(settings, tmp_path, teacher=teacher)
    assert sorted(terms) == ["attnfd/encoder.layer2", "attnfd/encoder[4]", "cross_entropy"]
    assert all(math.isfinite(term) and term > 0 for term in terms.values())


@pytest.mark.slow
def test_a_student_of_another_family_is_trained_scored_and_kept(toys: Path, tmp_path: Path) -> None:
    settings = experiment(toys, student=STUDENTS["cnn of smp"], train__epochs=1)
    run = make_run(settings, tmp_path)
    assert 0 <= run.run(lambda record: False).last.val_miou <= 1
    assert run.best_weights.is_file()
    assert make_run(settings, tmp_path).last == run.last
