"""`pretrained: PATH`: what a file fills, what is left out, and what is refused in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import CheckpointError
from attnfd_ray.models import SegmentationModel, build_model, save_model
from attnfd_ray.models.pretrained import file_hash, pinned

NARROW = {"backbone": "resnet18", "width": 0.125}
MOBILE = {"backbone": "mobilenet_v2"}
LRASPP = {"arch": "torchvision/lraspp_mobilenet_v3_large", "backbone": "mobilenet_v3_large"}
SMP = {"arch": "smp/FPN", "backbone": "mobilenet_v2", "output_stride": 32}
TIMM = {"arch": "smp/Unet", "backbone": "tu-mobilenetv3_small_050", "output_stride": 32}
CONVNEXT = {"arch": "smp/Unet", "backbone": "tu-convnext_atto", "output_stride": 32}


def build(
    network: Mapping[str, Any], *, num_classes: int = 4, seed: int = 0, **others: Any
) -> SegmentationModel:
    torch.manual_seed(seed)
    return build_model(ModelSettings.model_validate({**network, **others}), num_classes=num_classes)


def given_to(network: torch.nn.Module) -> dict[str, Tensor]:
    """Return tensors of the network's shapes, each full of a number of its own."""
    return {
        name: torch.full(tensor.shape, float(number))
        if tensor.is_floating_point()
        else torch.zeros((), dtype=torch.long)
        for number, (name, tensor) in enumerate(network.state_dict().items(), start=1)
    }


def of_torchvision(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None)
    return given_to(network)


def of_narrow(name: str) -> dict[str, Tensor]:
    """Return a classifier of torchvision's, as narrow as ours."""
    backbone = build({**NARROW, "backbone": name}).backbone
    return given_to(backbone) | {"fc.weight": torch.ones(9, 64), "fc.bias": torch.ones(9)}


def of_timm(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        network = pytest.importorskip("timm").create_model(name)
    return given_to(network)


def needs_smp(network: Mapping[str, Any]) -> None:
    if network.get("arch", "").startswith("smp/"):
        pytest.importorskip("segmentation_models_pytorch")


def filled_alone(
    network: Mapping[str, Any], path: Path, prefix: str
) -> tuple[dict[str, Tensor], str | None]:
    """Build with a file's weights; return one part and the report.

    All other parts must have their first weights.
    """
    plain = build(network)
    state_after = torch.get_rng_state()
    filled = build(network, pretrained=str(path))
    assert torch.equal(torch.get_rng_state(), state_after)
    tensors = filled.state_dict()
    assert all(
        torch.equal(each, tensors[name])
        for name, each in plain.state_dict().items()
        if prefix not in name
    )
    return {
        name.removeprefix(prefix): each for name, each in tensors.items() if prefix in name
    }, filled.first_weights


BACKBONES = [
    (NARROW, "backbone.", lambda: of_narrow("resnet18")),
    (MOBILE, "backbone.", lambda: of_torchvision("mobilenet_v2")),
    (MOBILE, "backbone.", lambda: of_timm("mobilenetv2_100")),
    (LRASPP, "backbone.", lambda: of_torchvision("mobilenet_v3_large")),
    (SMP, "encoder.", lambda: of_torchvision("mobilenet_v2")),
    (TIMM, "encoder.", lambda: of_timm("mobilenetv3_small_050")),
    (CONVNEXT, "encoder.", lambda: of_timm("convnext_atto")),
]


@pytest.mark.parametrize(("network", "prefix", "tensors"), BACKBONES)
def test_a_classifiers_file_fills_the_backbone_in_its_order_and_says_what_is_left_out(
    network: Mapping[str, Any],
    prefix: str,
    tensors: Callable[[], dict[str, Tensor]],
    tmp_path: Path,
) -> None:
    needs_smp(network)
    given, path = tensors(), tmp_path / "weights.pth"
    torch.save(given, path)
    filled, said = filled_alone(network, path, prefix)
    # a backbone is a classifier without its last layers, in the same order whatever the names are
    values = [tensor for tensor in given.values() if tensor.dim()]
    taken = [tensor for tensor in filled.values() if tensor.dim()]
    assert len(taken) > 40
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(taken, values, strict=False))
    assert said is not None
    assert re.fullmatch(
        rf"{path}: {len(filled)} tensors taken for the backbone, left out classifier: \d+ \(.+\)",
        said,
    )


@pytest.mark.parametrize(
    "put", ["{}", "module.{}", "backbone.{}", "encoder.{}", "model.{}", "module.model.{}"]
)
def test_prefixes_of_libraries_are_seen_through(put: str, tmp_path: Path) -> None:
    given = of_narrow("resnet18")
    save_file(
        {put.format(name): tensor for name, tensor in given.items()}, tmp_path / "w.safetensors"
    )
    filled, _ = filled_alone(NARROW, tmp_path / "w.safetensors", "backbone.")
    assert all(torch.equal(tensor, given[name]) for name, tensor in filled.items())


@pytest.mark.slow
@pytest.mark.parametrize("network", [NARROW, MOBILE, TIMM, SMP])
def test_a_backbones_own_names_are_taken_with_and_without_its_place(
    network: Mapping[str, Any], tmp_path: Path
) -> None:
    needs_smp(network)
    model = build(network)
    place = f"{model.backbone_path}."
    given = {name: tensor for name, tensor in given_to(model).items() if name.startswith(place)}
    for number, cut in enumerate(("", place)):
        path = tmp_path / f"{number}.pth"
        torch.save({name.removeprefix(cut): tensor for name, tensor in given.items()}, path)
        filled, _ = filled_alone(network, path, place)
        assert all(torch.equal(tensor, given[f"{place}{name}"]) for name, tensor in filled.items())


@pytest.mark.parametrize("network", [NARROW, LRASPP, TIMM])
@pytest.mark.parametrize("put", ["{}", "model.{}"])
def test_a_whole_networks_file_fills_all_of_it(
    network: Mapping[str, Any], put: str, tmp_path: Path
) -> None:
    needs_smp(network)
    given, path = given_to(build(network)), tmp_path / "net.pth"
    torch.save(
        {"state_dict": {put.format(name): tensor for name, tensor in given.items()}, "epoch": 3},
        path,
    )
    model = build(network, pretrained=str(path))
    assert all(torch.equal(tensor, given[name]) for name, tensor in model.state_dict().items())
    assert model.first_weights == (
        f"{path}: {len(given)} tensors taken for the whole network, left out beside the weights: "
        "1 (epoch)"
    )


@pytest.mark.parametrize("network", [NARROW, LRASPP, SMP])
def test_a_head_of_other_classes_is_left_out_and_the_rest_is_taken(
    network: Mapping[str, Any], tmp_path: Path
) -> None:
    needs_smp(network)
    other, path = build(network, num_classes=7, seed=1), tmp_path / "net.safetensors"
    settings = ModelSettings.model_validate(network)
    save_model(other, path, settings=settings, num_classes=7, class_names=list("abcdefg"), extra={})
    plain, model = build(network), build(network, pretrained=str(path))
    given, drawn_here = other.state_dict(), plain.state_dict()
    head = {name for name, tensor in given.items() if tensor.shape != drawn_here[name].shape}
    assert head
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, drawn_here[name] if name in head else given[name])
    assert model.first_weights is not None
    assert f"left out classifier of other classes: {len(head)} (" in model.first_weights


def test_auxiliary_heads_and_attention_gates_are_left_out_and_said(tmp_path: Path) -> None:
    given = given_to(build(NARROW))
    torch.save(
        given | {"aux_classifier.0.weight": torch.ones(1), "aspp.cbam.x": torch.ones(1)},
        tmp_path / "a.pth",
    )
    said = build(NARROW, pretrained=str(tmp_path / "a.pth")).first_weights
    assert said is not None
    assert said.endswith(
        "left out attention gates: 1 (aspp.cbam.x); auxiliary classifier: 1 "
        "(aux_classifier.0.weight)"
    )


def test_names_of_a_networks_authors_are_translated_as_timm_does(tmp_path: Path) -> None:
    needs_smp(CONVNEXT)
    given = of_timm("convnext_atto")
    theirs = {
        re.sub(r"^stages\.(\d)\.blocks\.", r"stages.\1.", name)
        .replace("stem.", "downsample_layers.0.")
        .replace("conv_dw", "dwconv")
        .replace("mlp.fc", "pwconv")
        .replace("head.norm", "norm")
        .replace("head.fc", "head"): tensor
        for name, tensor in given.items()
    }
    theirs = {
        re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name): each
        for name, each in theirs.items()
    }
    torch.save(theirs, tmp_path / "fb.pth")
    filled, _ = filled_alone(CONVNEXT, tmp_path / "fb.pth", "encoder.")
    values = [tensor for tensor in given.values() if tensor.dim()]
    assert all(
        torch.equal(mine, other) for mine, other in zip(filled.values(), values, strict=False)
    )


class Own(SegmentationModel):
    """A user's network, which has no backbone and none of our names."""

    def __init__(self, settings: ModelSettings, *, num_classes: int) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(3, 4, 1)
        self.head = torch.nn.Conv2d(4, num_classes, 1)
        self.taps = {"logits": "head"}


def test_a_users_own_network_is_filled_as_a_whole(tmp_path: Path) -> None:
    network = {"arch": f"{__name__}:Own"}
    given = given_to(build(network, num_classes=9))
    torch.save(given, tmp_path / "own.pth")
    plain, filled = (
        build(network).state_dict(),
        build(network, pretrained=str(tmp_path / "own.pth")),
    )
    for name, tensor in filled.state_dict().items():
        assert torch.equal(tensor, (plain if name.startswith("head.") else given)[name])
    torch.save({"head.weight": given["head.weight"]}, tmp_path / "part.pth")
    assert " 3 missing (body.weight, body.bias, head.bias); needed" in refusal(
        network, tmp_path / "part.pth"
    )


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("1/0",))


def refusal(network: Mapping[str, Any], path: Path, **others: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        build(network, pretrained=str(path), **others)
    said = str(caught.value)
    assert "\n" not in said
    assert str(path) in said
    return said


def test_a_file_of_another_network_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(of_narrow("resnet34"), path)
    said = refusal(NARROW, path)
    assert re.match(
        rf"{path}: \d+ unexpected \(layer1.2.conv1.weight, .*, \.\.\.\); needed are weights of ",
        said,
    )
    assert said.endswith(
        "of resnet18 at width 0.125, or of the whole deeplabv3plus; give another file, or set "
        "pretrained: none"
    )
    torch.save(given_to(build(NARROW)), path)
    assert " unexpected (backbone.conv1.weight" in refusal(LRASPP, path)
    torch.save(
        {
            name: each
            for name, each in of_narrow("resnet18").items()
            if name != "layer4.0.conv1.weight"
        },
        path,
    )
    assert refusal(NARROW, path).startswith(f"{path}: 1 missing (layer4.0.conv1.weight); needed")


def test_a_width_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(of_torchvision("resnet18"), path)
    said = refusal(NARROW, path)
    assert "of another shape (conv1.weight [64, 3, 7, 7] here, [8, 3, 7, 7] needed" in said
    assert "needed are weights of resnet18 at width 0.125" in said


def test_a_missing_file_and_a_pickle_that_runs_code_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    assert "cannot be read on" in refusal(NARROW, path)
    torch.save({"conv1.weight": Evil()}, path)
    assert "asks for 'eval', which could run code" in refusal(NARROW, path)


def test_a_file_that_changed_after_its_hash_was_taken_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(given_to(build(NARROW)), path)
    settings = pinned(ModelSettings.model_validate({**NARROW, "pretrained": str(path)}))
    assert settings.pretrained_sha256 == file_hash(path)
    assert pinned(settings) is settings
    assert build_model(settings, num_classes=4).first_weights
    torch.save(given_to(build(NARROW)) | {"aux_classifier.x": torch.ones(3)}, path)
    said = refusal(NARROW, path, pretrained_sha256=settings.pretrained_sha256)
    assert (
        f"begins with {file_hash(path)}, pretrained_sha256 is {settings.pretrained_sha256}: not "
        "the file" in said
    )
