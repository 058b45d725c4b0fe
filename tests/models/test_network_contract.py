"""What every network and backbone promises; what is registered is tested by being registered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray import registry
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.models import SegmentationModel
from attnfd_ray.testing.networks import BackboneContract, NetworkContract

# a library's networks are too many: one of each head and of each kind of encoder
OF_FAMILIES = {
    "smp": [
        {"arch": "smp/Unet", "backbone": "resnet18"},
        {"arch": "smp/PSPNet", "backbone": "resnet18"},
        {"arch": "smp/DeepLabV3Plus", "backbone": "resnet18"},
        {"arch": "smp/Segformer", "backbone": "mit_b0"},
        {"arch": "smp/FPN", "backbone": "tu-mobilenetv3_small_050"},
    ],
    "torchvision": [
        {"arch": "torchvision/lraspp_mobilenet_v3_large"},
        {"arch": "torchvision/deeplabv3_mobilenet_v3_large"},
        {"arch": "torchvision/fcn_resnet50"},
    ],
}
ARCHS = [{"arch": name, "width": 0.125} for name in registry.TABLES["arch"]]
BACKBONES = sorted(registry.TABLES["backbone"])
ON_BACKBONES = [{"backbone": name, "width": 0.125} for name in BACKBONES]
NETWORKS: list[dict[str, Any]] = [
    *ARCHS,
    *ON_BACKBONES,
    *(network for networks in OF_FAMILIES.values() for network in networks),
]


def name_of(network: dict[str, Any]) -> str:
    return "-".join(str(value) for key, value in network.items() if key != "width")


def test_every_family_is_tested() -> None:
    assert OF_FAMILIES.keys() == registry.FAMILIES["arch"].keys()
    assert len(BACKBONES) >= 5


class TestEveryNetwork(NetworkContract):
    @pytest.fixture(autouse=True, params=NETWORKS, ids=name_of)
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.network = request.param
        if self.network.get("arch", "").startswith("smp/"):
            pytest.importorskip("segmentation_models_pytorch")


class TestEveryBackbone(BackboneContract):
    @pytest.fixture(autouse=True, params=BACKBONES)
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.backbone = request.param


# A network as a user writes it: it keeps the contract, and the contract finds mistakes in it.


class Own(SegmentationModel):
    def __init__(self, settings: ModelSettings, *, num_classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8))
        self.head = nn.Conv2d(8, num_classes, 1)
        self.taps = {"stage1": "backbone", "logits": "head"}

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NCHW = self.head(F.relu(self.backbone(images_NCHW)))
        return F.interpolate(logits_NCHW, size=images_NCHW.shape[-2:], mode="bilinear")


class TestOwn(NetworkContract):
    network = {"arch": f"{__name__}:Own"}


class Small(Own):
    def forward(self, images_NCHW):
        return self.head(self.backbone(images_NCHW))


class InPlace(Own):
    def forward(self, images_NCHW):
        logits_NCHW = self.head(F.relu(self.backbone(images_NCHW), inplace=True))
        return F.interpolate(logits_NCHW, size=images_NCHW.shape[-2:], mode="bilinear")


class Unused(Own):
    def __init__(self, settings, *, num_classes):
        super().__init__(settings, num_classes=num_classes)
        self.unused = nn.Conv2d(8, 8, 1)


class Dropping(Own):
    def forward(self, images_NCHW):
        return F.dropout(super().forward(images_NCHW))


class Lying(Own):
    def tap_channels(self):
        return {"stage1": 16, "logits": 4}


@pytest.mark.parametrize(
    ("kind", "test", "problem"),
    [
        (Small, "logits_have_a_channel_a_class_and_the_size_of_the_images", "logits have shape"),
        (InPlace, "nothing_overwrites_a_feature_after_it_was_read", "at stage1 was changed"),
        (
            Unused,
            "every_parameter_that_learns_gets_a_gradient",
            "no logit depends on unused",
        ),
        (Dropping, "in_eval_mode_it_is_deterministic_and_keeps_its_state", "different logits"),
        (Lying, "every_tap_has_the_channels_that_it_announces", "but features have"),
    ],
)
def test_a_mistake_in_a_network_is_found(kind: type, test: str, problem: str) -> None:
    contract = NetworkContract()
    contract.network = {"arch": f"{__name__}:{kind.__name__}"}
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=problem):
        getattr(contract, f"test_{test}")()
