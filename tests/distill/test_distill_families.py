"""Taps of different networks: the table of those that exist, and modules by tap."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from attnfd_ray.config.schema import ExperimentSettings, ModelSettings
from attnfd_ray.distill.features import TapModuleDict
from attnfd_ray.distill.method import build_method
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.errors import ConfigError
from attnfd_ray.models import build_model

STUDENT = {"arch": "torchvision/lraspp_mobilenet_v3_large"}
TEACHER = {"backbone": "resnet18", "width": 0.25}


def build(layers: list[str], teacher: dict[str, Any] = TEACHER) -> tuple[Any, tuple[str, ...]]:
    """Return AttnFD between the student and a teacher, and its taps."""
    settings = ExperimentSettings.model_validate(
        {
            "experiment": "pairs",
            "data": {"name": "camvid", "root": "/nowhere", "crop": [32, 32]},
            "teacher": {**teacher, "checkpoint": "/no/such/teacher.pth"},
            "student": STUDENT,
            "method": {"name": "attnfd", "layers": layers},
        }
    )
    torch.manual_seed(0)
    student = build_model(settings.student, num_classes=4)
    return build_method(
        settings,
        student,
        FrozenTeacher(build_model(ModelSettings.model_validate(teacher), num_classes=4)),
    )


def test_channels_that_differ_are_bridged() -> None:
    method, taps = build(["stage1", "stage4", "decoder"])
    assert taps == ("stage1", "stage4", "decoder")
    widths = {
        layer: connector[0].weight.shape[:2] for layer, connector in method.connectors.items()
    }
    assert widths == {"stage1": (16, 24), "stage4": (128, 960), "decoder": (64, 128)}


def test_a_tap_that_one_side_lacks_is_reported_with_the_taps_of_both() -> None:
    with pytest.raises(ConfigError) as caught:
        build(["stage4", "aspp"])
    assert caught.value.problems == [
        "the student has no tap 'aspp'; there are modules' paths (encoder.layer2) and:",
        "tap          student: channels, stride  teacher: channels, stride",
        "stage1       24, 4                      16, 4",
        "stage2       40, 8                      32, 8",
        "stage3       112, 16                    64, 16",
        "stage4       960, 16                    128, 16",
        "decoder      128, 16                    64, 4",
        "logits       4, 8                       4, 4",
        "aspp_pre     -                          64, 16",
        "aspp         -                          64, 16",
        "decoder_pre  -                          64, 4",
    ]


def test_a_modules_path_that_only_one_side_has_is_reported_likewise() -> None:
    with pytest.raises(ConfigError) as caught:
        build(["backbone.layer4"])
    assert caught.value.problems[0].startswith(
        "the student has no tap 'backbone.layer4'; there are modules' paths"
    )
    with pytest.raises(ConfigError) as caught:
        build(["classifier.cbr"])
    assert caught.value.problems[0].startswith(
        "the teacher has no tap 'classifier.cbr'; there are modules' paths"
    )


def test_a_misspelt_name_is_reported_with_the_nearest_one() -> None:
    with pytest.raises(
        ConfigError, match=r"^the student has no tap 'stage44'; did you mean 'stage4'\? there are"
    ):
        build(["stage44"], teacher=STUDENT)


def test_modules_by_tap_take_any_modules_path() -> None:
    modules = TapModuleDict(
        {"encoder.layer2": nn.Identity(), "stage4": nn.ReLU(), "encoder[2]": nn.Sigmoid()}
    )
    assert [tap for tap, _ in modules.items()] == ["encoder.layer2", "stage4", "encoder[2]"]
    assert isinstance(modules["encoder.layer2"], nn.Identity)
    assert isinstance(modules["stage4"], nn.ReLU)
    # names without dots are kept as they are, so files of before still fit
    assert [name for name, _ in modules.named_children()] == [
        "encoder/layer2",
        "stage4",
        "encoder[2]",
    ]
