"""Networks of segmentation_models.pytorch: their taps, settings, weights and errors."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from email.message import Message
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from attnfd_ray import registry
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import CheckpointError, ConfigError
from attnfd_ray.models import (
    SegmentationModel,
    TapRecorder,
    build_model,
    tap_shapes,
)
from attnfd_ray.models.smp_encoders import source

smp: Any = pytest.importorskip("segmentation_models_pytorch")
hub: Any = pytest.importorskip("huggingface_hub")

NETWORKS = [
    ("smp/Unet", "resnet18"),
    ("smp/PSPNet", "resnet18"),
    ("smp/DeepLabV3Plus", "resnet18"),
    ("smp/Segformer", "mit_b0"),
    ("smp/FPN", "tu-mobilenetv3_small_050"),
]
every_network = pytest.mark.parametrize("network", NETWORKS, ids="-".join)


def settings(arch: str, backbone: str, **others: Any) -> ModelSettings:
    return ModelSettings.model_validate({"arch": arch, "backbone": backbone, **others})


def build(arch: str, backbone: str) -> SegmentationModel:
    torch.manual_seed(0)
    return build_model(settings(arch, backbone), num_classes=4)


@cache
def built(arch: str, backbone: str) -> SegmentationModel:
    """One network for the tests that leave it as it is."""
    return build(arch, backbone).eval()


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def problem(**tree: Any) -> str:
    """Return the only thing that is wrong with the settings."""
    with pytest.raises(ValidationError) as raised:
        ModelSettings.model_validate(tree)
    (error,) = raised.value.errors()
    return f"{error['loc'][0]}: {error['msg'].removeprefix('Value error, ')}"


@every_network
def test_it_is_the_librarys_own_network_under_its_own_names(network: tuple[str, str]) -> None:
    model, (arch, backbone) = built(*network), network
    theirs = getattr(smp, arch.removeprefix("smp/"))(backbone, encoder_weights=None, classes=4)
    theirs.load_state_dict(model.state_dict())  # strict: all names and shapes
    with torch.no_grad():
        assert torch.equal(theirs.eval()(images(1, 3, 64, 64)), model(images(1, 3, 64, 64)))


def test_stages_are_the_features_from_stride_4_on_and_aspp_is_where_there_is_one() -> None:
    assert built("smp/DeepLabV3Plus", "resnet18").tap_channels() == {
        "stage1": 64, "stage2": 128, "stage3": 256, "stage4": 512,
        "aspp": 256, "decoder": 256, "logits": 4,
    }  # fmt: skip
    assert built("smp/Segformer", "mit_b0").tap_channels() == {
        "stage1": 32, "stage2": 64, "stage3": 160, "stage4": 256, "decoder": 256, "logits": 4,
    }  # fmt: skip
    assert built("smp/PSPNet", "resnet18").tap_channels() == {
        "stage1": 64,
        "stage2": 128,
        "decoder": 512,
        "logits": 4,
    }


def test_a_heads_feature_has_no_dropout_in_it() -> None:
    for network in (("smp/DeepLabV3Plus", "resnet18"), ("smp/PSPNet", "resnet18")):
        model = build(*network).train()
        recorder = TapRecorder(model, ["aspp"] if "aspp" in model.taps else ["decoder"])
        seen = []
        for _ in range(2):
            model(images(2, 3, 64, 64))
            seen += recorder.features.values()
        assert torch.equal(*seen)  # same batch statistics, another dropout mask


def test_a_modules_path_is_a_tap_too() -> None:
    model = built("smp/Unet", "resnet18")
    shapes = tap_shapes(model, ["encoder.layer2", "encoder.layer2.0.conv1", "encoder[3]", "stage2"])
    assert set(shapes.values()) == {(128, 8)}
    recorder = TapRecorder(model, ["encoder.layer2", "stage2"])
    with torch.no_grad():
        model(images(1, 3, 64, 64))
    assert recorder.features["encoder.layer2"] is recorder.features["stage2"]
    recorder.close()


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("encoder.layr2", "unknown tap 'encoder.layr2'; did you mean 'encoder.layer2'?"),
        ("stage5", "unknown tap 'stage5'; did you mean 'stage4'?"),
        ("", "unknown tap ''; there is: decoder, logits, stage1, stage2, stage3, stage4"),
        (
            "encoder",
            (
                "tap 'encoder': needs one feature map [N, C, H, W], its module gives 6 of them; "
                "name one, [0] to [5]"
            ),
        ),
        ("encoder[6]", "tap 'encoder[6]': there is no [6] in 6 of them; name one, [0] to [5]"),
        ("encoder[x]", "tap 'encoder[x]': there is no [x] in 6 of them; name one, [0] to [5]"),
    ],
)
def test_a_tap_that_is_none_is_refused_with_the_way_out(tap: str, message: str) -> None:
    model = built("smp/Unet", "resnet18")
    with pytest.raises(ConfigError) as caught:
        tap_shapes(model, [tap])
    assert str(caught.value) == message
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_finding_out_shapes_leaves_a_network_as_it_was() -> None:
    model = build("smp/Unet", "resnet18")
    model.decoder.eval()  # type: ignore[union-attr]
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    tap_shapes(model, model.taps)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_stages_that_a_network_does_not_use_are_frozen() -> None:
    for network, unused in {
        ("smp/Unet", "resnet18"): set(),
        ("smp/PSPNet", "resnet18"): {"layer3", "layer4"},
    }.items():
        frozen = {
            name.split(".")[1]
            for name, parameter in built(*network).named_parameters()
            if not parameter.requires_grad
        }
        assert frozen == unused


def test_stage1_has_stride_4() -> None:
    for network in NETWORKS:
        assert tap_shapes(built(*network), ["stage1"])["stage1"].stride == 4


def test_the_encoder_learns_at_the_base_rate() -> None:
    model = built("smp/Segformer", "mit_b0")
    slow = {id(parameter) for parameter in model.backbone_parameters()}
    assert slow == {
        id(parameter) for name, parameter in model.named_parameters() if name.startswith("encoder.")
    }


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("Unet", 32),
        ("PSPNet", 8),
        ("DeepLabV3", 16),
        ("DeepLabV3Plus", 16),
        ("PAN", 16),
        ("DPT", 16),
    ],
)
def test_settings_that_are_left_out_are_what_the_network_has(name: str, stride: int) -> None:
    written = ModelSettings.model_validate({"arch": f"smp/{name}"})
    assert (written.width, written.output_stride) == (1.0, stride)
    assert written.backbone == (
        "tu-vit_base_patch16_224.augreg_in21k" if name == "DPT" else "resnet18"
    )
    assert ModelSettings.model_validate_json(written.model_dump_json()) == written


def test_every_class_of_the_librarys_top_level_is_an_arch() -> None:
    names = [kind.__name__ for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()]
    assert len(names) > 10
    assert all(callable(registry.load("arch", f"smp/{name}")) for name in names)


def test_an_output_stride_reaches_the_encoder() -> None:
    for stride in (8, 16):
        model = build_model(
            settings("smp/DeepLabV3Plus", "resnet18", output_stride=stride), num_classes=4
        )
        assert tap_shapes(model, ["stage4", "decoder"]) == {
            "stage4": (512, stride),
            "decoder": (256, 4),
        }


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"arch": "smp/Unett"}, "arch: unknown arch 'smp/Unett'; did you mean 'smp/Unet'?"),
        ({"arch": "smp/losses"}, "arch: unknown arch 'smp/losses'; there is: smp/DPT, "),
        ({"arch": "smp/"}, "arch: unknown arch 'smp/'; did you mean 'smp/...'?"),
        (
            {"arch": "smpp/Unet"},
            "arch: unknown arch 'smpp/Unet'; there is: deeplabv3plus, smp/..., torchvision/...",
        ),
        (
            {"arch": "smp/Unet", "backbone": "resnet-18"},
            "backbone: smp/Unet has no backbone 'resnet-18'; did you mean 'resnet18'?",
        ),
        ({"arch": "smp/DPT", "backbone": "mit_b0"}, "backbone: smp/DPT has no backbone 'mit_b0'; "),
        ({"arch": "smp/Unet", "width": 0.5}, "width: needs 1 with smp/Unet"),
        ({"arch": "smp/Unet", "output_stride": 16}, "output_stride: needs 32 with smp/Unet"),
        ({"arch": "smp/PAN", "output_stride": 8}, "output_stride: needs 16 or 32 with smp/PAN"),
        ({"output_stride": 32}, "output_stride: needs 8 or 16"),
        ({"backbone": "mit_b0"}, "backbone: unknown backbone 'mit_b0'; "),
    ],
)
def test_what_it_cannot_be_is_one_line_with_the_way_out(tree: dict[str, Any], message: str) -> None:
    said = problem(**tree)
    assert said.startswith(message)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("arch", "backbone", "message"),
    [
        (
            "smp/Linknet",
            "mit_b0",
            "smp/Linknet cannot be made on mit_b0: Encoder `mit_b0` is not supported for Linknet",
        ),
        (
            "smp/Unet",
            "tu-swin_tiny_patch4_window7_224",
            (
                "smp/Unet cannot run on tu-swin_tiny_patch4_window7_224: Input height (64) doesn't "
                "match model (224)."
            ),
        ),
    ],
)
def test_an_encoder_that_does_not_fit_is_one_line(arch: str, backbone: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(arch, backbone)
    assert str(caught.value) == message


def test_without_the_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    assert problem(arch="smp/Unet") == (
        "arch: arch 'smp/Unet' needs the package 'segmentation_models_pytorch', not installed: "
        "pip install attnfd-ray[smp]"
    )


@pytest.fixture
def cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's, and no network."""
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_weights_out_of_reach_are_one_line_that_says_what_to_do(cache_directory: Path) -> None:
    repos = {"resnet18": "smp-hub/resnet18.imagenet", "tu-resnet18": "timm/resnet18.a1_in1k"}
    for backbone, repo in repos.items():
        with pytest.raises(CheckpointError) as caught:
            build_model(settings("smp/Unet", backbone, pretrained="imagenet"), num_classes=4)
        said = str(caught.value)
        assert said.startswith(
            f"ImageNet weights of {backbone}: cannot be downloaded (HF_HUB_OFFLINE is set); where "
            f"there is a network run `hf download {repo} model.safetensors"
        )
        assert said.endswith(
            f" and copy what it adds to the Hugging Face cache to {cache_directory}/, give a file "
            "with pretrained: PATH, or set pretrained: none"
        )
        assert "\n" not in said


def test_the_hub_is_asked_once_for_each_name_and_not_again(
    cache_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    asked: list[tuple[str, str, float]] = []

    def answer(request: urllib.request.Request, timeout: float) -> None:
        asked.append((request.get_method(), request.full_url.rpartition("/")[2], timeout))
        code = 404 if len(asked) == 1 else 503
        raise urllib.error.HTTPError(request.full_url, code, "no", Message(), None)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    with pytest.raises(
        CheckpointError, match=r"cannot be downloaded \(.*pytorch_model.bin: HTTP Error 503: no\)"
    ):
        source("tu-resnet18").obtain()
    assert asked == [("HEAD", "model.safetensors", 10.0), ("HEAD", "pytorch_model.bin", 10.0)]


def test_weights_in_the_cache_fill_the_encoder_and_change_nothing_else(
    cache_directory: Path,
) -> None:
    from safetensors.torch import save_file

    where = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
    snapshot = (
        cache_directory
        / f"models--{where['repo_id'].replace('/', '--')}"
        / "snapshots"
        / where["revision"]
    )
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    torch.manual_seed(5)
    theirs = smp.encoders.get_encoder("resnet18", weights=None).state_dict()
    save_file(theirs, snapshot / "model.safetensors")
    plain = build("smp/Unet", "resnet18")
    state_after = torch.get_rng_state()
    torch.manual_seed(0)
    filled = build_model(settings("smp/Unet", "resnet18", pretrained="imagenet"), num_classes=4)
    assert torch.equal(torch.get_rng_state(), state_after)
    for name, tensor in filled.state_dict().items():
        head, _, inner = name.partition(".")
        assert torch.equal(tensor, theirs[inner] if head == "encoder" else plain.state_dict()[name])


def test_an_encoder_without_imagenet_weights_is_one_line(cache_directory: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"imagenet: smp has none for resnext101_32x4d; set pretrained: none or PATH",
    ):
        build_model(settings("smp/Unet", "resnext101_32x4d", pretrained="imagenet"), num_classes=4)
