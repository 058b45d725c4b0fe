from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.models import SegmentationModel, TapRecorder, build_model
from attnfd_ray.models.deeplabv3plus import DeepLabV3Plus
from attnfd_ray.models.layers import scaled

TINY = ModelSettings(backbone="resnet18", width=0.125)
SMALL = [
    ModelSettings(backbone=name, width=0.25) for name in ("resnet18", "resnet50", "mobilenet_v2")
]


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("backbone", "counts"),
    [
        ("resnet101", {21: 59_344_309, 19: 59_343_795, 11: 59_341_739}),
        ("resnet18", {21: 16_608_181, 19: 16_607_667, 11: 16_605_611}),
        ("mobilenet_v2", {21: 5_816_053, 19: 5_815_539, 11: 5_813_483}),
    ],
)
def test_parameter_counts_are_the_published_ones(backbone: str, counts: dict[int, int]) -> None:
    for num_classes, count in counts.items():
        with torch.device("meta"):
            model = build_model(ModelSettings(backbone=backbone), num_classes=num_classes)
        assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_camvid_image_goes_through_at_either_output_stride(output_stride: int) -> None:
    settings = ModelSettings(backbone="resnet18", width=0.125, output_stride=output_stride)
    model = build_model(settings, num_classes=11).eval()
    recorder = TapRecorder(model, ["aspp"])
    with torch.no_grad():
        assert model(images(1, 3, 360, 480)).shape == (1, 11, 360, 480)
    assert recorder.features["aspp"].shape[-2:] == ((45, 60) if output_stride == 8 else (23, 30))
    rates = [getattr(model.aspp, f"aspp{i}").atrous_conv.dilation[0] for i in (1, 2, 3, 4)]
    assert rates == ([1, 12, 24, 36] if output_stride == 8 else [1, 6, 12, 18])


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [
        (64, 1, 64),
        (21, 1, 21),
        (64, 0.5, 32),
        (48, 0.5, 24),
        (24, 0.5, 16),
        (16, 0.1, 8),
        (256, 0.3, 80),
        (64, 4, 256),
    ],
)
def test_width_scales_to_a_multiple_of_eight_and_width_one_is_exact(
    channels: int, width: float, expected: int
) -> None:
    assert scaled(channels, width) == expected


@pytest.mark.parametrize("settings", SMALL, ids=lambda settings: settings.backbone)
def test_its_taps_are_those_that_rules_know_before_it_is_built(settings: ModelSettings) -> None:
    with torch.device("meta"):
        model = build_model(settings, num_classes=7)
    assert tuple(model.taps) == tuple(model.tap_channels()) == DeepLabV3Plus.tap_names


def test_width_reaches_backbone_pyramid_and_decoder() -> None:
    with torch.device("meta"):
        model = build_model(ModelSettings(backbone="resnet50", width=0.5), num_classes=21)
    assert model.tap_channels() == {
        "stage1": 128, "stage2": 256, "stage3": 512, "stage4": 1024,
        "aspp_pre": 128, "aspp": 128, "decoder_pre": 128, "decoder": 128, "logits": 21,
    }  # fmt: skip
    assert model.state_dict()["decoder.conv1.weight"].shape == (24, 128, 1, 1)


def test_dropout_is_where_the_release_has_it() -> None:
    model = build_model(TINY, num_classes=4)
    dropouts = {
        name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)
    }
    assert dropouts == {"aspp.dropout": 0.5, "decoder.last_conv.3": 0.5, "decoder.last_conv.7": 0.1}


def test_first_weights_keep_the_signal_at_about_its_size() -> None:
    torch.manual_seed(0)
    model = build_model(ModelSettings(backbone="mobilenet_v2"), num_classes=4)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            assert (
                0.5 < module.weight.std().item() * (fan_in / 2) ** 0.5 < 2
            )  # Kaiming's 1; few weights scatter
    assert not model.get_parameter("decoder.last_conv.8.bias").any()


def test_in_train_mode_a_single_image_is_refused_by_the_pooled_batchnorm() -> None:
    model = build_model(TINY, num_classes=4)
    assert model(images(2, 3, 33, 33)).shape == (2, 4, 33, 33)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(images(1, 3, 33, 33))


def test_the_repeated_pooled_pixel_is_what_aligned_upsampling_gives() -> None:
    pixel = images(2, 8, 1, 1) - 0.5
    upsampled = F.interpolate(pixel, size=(5, 7), mode="bilinear", align_corners=True)
    assert torch.equal(pixel.expand(-1, -1, 5, 7), upsampled)


class NotANetwork:
    def __init__(self, settings: ModelSettings, *, num_classes: int) -> None:
        pass


class OwnNetwork(DeepLabV3Plus):
    pass


def test_a_network_of_ones_own_is_built_if_it_keeps_the_contract() -> None:
    here = f"{__name__}:"
    own = build_model(TINY.model_copy(update={"arch": f"{here}OwnNetwork"}), num_classes=4)
    assert isinstance(own, SegmentationModel)
    assert isinstance(own, OwnNetwork)
    with pytest.raises(
        ConfigError, match=r"NotANetwork' must derive from attnfd_ray.models.SegmentationModel"
    ):
        build_model(TINY.model_copy(update={"arch": f"{here}NotANetwork"}), num_classes=4)
