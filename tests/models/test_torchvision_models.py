"""torchvision's segmentation networks: their taps, settings, weights and errors."""

from __future__ import annotations

import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import Tensor

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import CheckpointError
from attnfd_ray.models import (
    SegmentationModel,
    TapRecorder,
    build_model,
    tap_shapes,
)

NAMES = torchvision.models.list_models(module=torchvision.models.segmentation)
# one of each head and of each backbone
SOME = ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50"]
some_networks = pytest.mark.parametrize("name", SOME)
MOBILENET_STAGES = {"stage1": (24, 4), "stage2": (40, 8), "stage3": (112, 16), "stage4": (960, 16)}
RESNET_STAGES = {"stage1": (256, 4), "stage2": (512, 8), "stage3": (1024, 8), "stage4": (2048, 8)}


def settings(name: str, **others: Any) -> ModelSettings:
    return ModelSettings.model_validate({"arch": f"torchvision/{name}", **others})


def build(name: str, **others: Any) -> SegmentationModel:
    torch.manual_seed(0)
    return build_model(settings(name, **others), num_classes=4)


@cache
def built(name: str) -> SegmentationModel:
    """One network for the tests that leave it as it is."""
    return build(name).eval()


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@some_networks
def test_it_is_the_librarys_own_network_under_its_own_names(name: str) -> None:
    theirs = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=4)
    theirs.load_state_dict(built(name).state_dict())  # strict: all names and shapes
    with torch.no_grad():
        assert torch.equal(
            theirs.eval()(images(1, 3, 45, 70))["out"], built(name)(images(1, 3, 45, 70))
        )


@pytest.mark.parametrize("name", NAMES)
def test_every_tap_has_the_channels_and_the_stride_it_announces(name: str) -> None:
    if name.endswith("resnet101"):
        with torch.device("meta"):  # the same as resnet50, but large
            model = build(name)
    else:
        model = built(name)
    recorder = TapRecorder(model, model.taps)
    with torch.no_grad():
        model.eval()(images(1, 3, 128, 128).to(next(model.parameters()).device))
    found = {
        tap: (feature.shape[1], 128 // feature.shape[2])
        for tap, feature in recorder.features.items()
    }
    recorder.close()
    heads = {
        "lraspp": {"decoder": (128, 16), "logits": (4, 8)},
        "deeplabv3": dict.fromkeys(("aspp", "decoder"), (256, 16 if "mobilenet" in name else 8))
        | {"logits": (4, 16 if "mobilenet" in name else 8)},
        "fcn": {"decoder": (512, 8), "logits": (4, 8)},
    }
    assert (
        found
        == (MOBILENET_STAGES if "mobilenet" in name else RESNET_STAGES)
        | heads[name.partition("_")[0]]
    )
    assert tap_shapes(model, model.taps) == found
    assert model.tap_channels() == {tap: channels for tap, (channels, _) in found.items()}


def test_a_modules_path_is_a_tap_too() -> None:
    model = built("deeplabv3_mobilenet_v3_large")
    assert tap_shapes(model, ["backbone.3", "backbone[out]", "classifier.0.convs.1"]) == {
        "backbone.3": (24, 4), "backbone[out]": (960, 16), "classifier.0.convs.1": (256, 16),
    }  # fmt: skip


@some_networks
def test_the_backbone_learns_at_the_base_rate(name: str) -> None:
    model = built(name)
    slow = {id(parameter) for parameter in model.backbone_parameters()}
    assert slow == {
        id(parameter)
        for name, parameter in model.named_parameters()
        if name.startswith("backbone.")
    }


def test_settings_that_are_left_out_are_what_the_network_has() -> None:
    for name in NAMES:
        written = settings(name)
        assert written.backbone == name.partition("_")[2]
        assert written.output_stride == (8 if "resnet" in name else 16)
        assert ModelSettings.model_validate_json(written.model_dump_json()) == written


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"arch": "torchvision/deeplabv3_resnet5"},
            (
                "unknown arch 'torchvision/deeplabv3_resnet5'; did you mean "
                "'torchvision/deeplabv3_resnet50'?"
            ),
        ),
        (
            {"arch": "torchvision/fcn_resnet50", "backbone": "resnet18"},
            "torchvision/fcn_resnet50 has no backbone 'resnet18'; did you mean 'resnet50'?",
        ),
        (
            {"arch": "torchvision/fcn_resnet50", "width": 0.5},
            "needs 1 with torchvision/fcn_resnet50",
        ),
        (
            {"arch": "torchvision/fcn_resnet50", "output_stride": 16},
            "needs 8 with torchvision/fcn_resnet50",
        ),
    ],
)
def test_what_it_cannot_be_is_one_line_with_the_way_out(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        ModelSettings.model_validate(tree)
    (error,) = raised.value.errors()
    assert error["msg"].removeprefix("Value error, ") == message


@pytest.fixture
def cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's, and no network."""

    def unreachable(*_args: Any, **_kwargs: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    return tmp_path / "hub" / "checkpoints"


def test_weights_out_of_reach_are_one_line_that_names_the_file_and_its_place(
    cache_directory: Path,
) -> None:
    with pytest.raises(CheckpointError) as caught:
        build("lraspp_mobilenet_v3_large", pretrained="imagenet")
    assert str(caught.value) == (
        "ImageNet weights of mobilenet_v3_large: cannot be downloaded (<urlopen error no route to "
        "host>); put mobilenet_v3_large-8738ca79.pth (from "
        "https://download.pytorch.org/models/mobilenet_v3_large-8738ca79.pth) into "
        f"{cache_directory}/, give a file with pretrained: PATH, or set pretrained: none"
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("lraspp_mobilenet_v3_large", "mobilenet_v3_large-8738ca79.pth"),
        ("fcn_resnet50", "resnet50-0676ba61.pth"),
    ],
)
def test_weights_in_the_cache_fill_the_backbone_and_change_nothing_else(
    name: str, file: str, cache_directory: Path
) -> None:
    cache_directory.mkdir(parents=True)
    torch.manual_seed(5)
    theirs = torchvision.models.get_model(name.partition("_")[2], weights=None).state_dict()
    torch.save(theirs, cache_directory / file)
    plain = build(name)
    state_after = torch.get_rng_state()
    filled = build(name, pretrained="imagenet")
    assert torch.equal(torch.get_rng_state(), state_after)
    for key, tensor in filled.state_dict().items():
        inside = key.removeprefix("backbone.")
        expected = (
            plain.state_dict()[key]
            if inside == key
            else theirs.get(inside, theirs.get(f"features.{inside}"))
        )
        assert expected is not None
        assert torch.equal(tensor, expected)
