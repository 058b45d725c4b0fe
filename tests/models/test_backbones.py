from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd_ray import registry
from attnfd_ray.models import Backbone

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2")


def make(name: str, *, width: float = 1.0, output_stride: int = 16) -> Backbone:
    backbone: Backbone = registry.load("backbone", name)(width=width, output_stride=output_stride)
    return backbone.eval()


def randomised(network: nn.Module) -> nn.Module:
    """Move BatchNorm away from the identity, so that swapped tensors show."""
    rng = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            tensors: Any = (
                module.weight.data,
                module.bias.data,
                module.running_mean,
                module.running_var,
            )
            for tensor in tensors:
                tensor.copy_(torch.rand(tensor.shape, generator=rng) + 0.25)
    return network.eval()


def stage(backbone: Backbone, path: str) -> Any:
    return backbone.get_submodule(path)


def output_of(network: nn.Module, path: str, images: Tensor) -> Tensor:
    kept: list[Tensor] = []
    handle = network.get_submodule(path).register_forward_hook(lambda *call: kept.append(call[2]))
    with torch.no_grad():
        network(images)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("name", BACKBONES)
def test_tensors_are_those_of_torchvision_without_its_classifier(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = make(name), getattr(torchvision.models, name)()
    translated = ours.from_torchvision(theirs.state_dict())
    assert {key: tensor.shape for key, tensor in translated.items()} == {
        key: tensor.shape for key, tensor in ours.state_dict().items()
    }


@pytest.mark.parametrize("name", BACKBONES[:-1])
def test_resnet_names_are_torchvisions_own(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = make(name), getattr(torchvision.models, name)()
    assert [*ours.state_dict(), "fc.weight", "fc.bias"] == list(theirs.state_dict())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_computes_what_torchvision_does_up_to_where_it_dilates(name: str) -> None:
    torch.manual_seed(0)
    theirs = randomised(getattr(torchvision.models, name)())
    ours = make(name)
    ours.load_state_dict(ours.from_torchvision(theirs.state_dict()))
    images = torch.randn(1, 3, 65, 49)
    for layer in ("layer1", "layer2", "layer3"):
        expected = output_of(theirs, layer, images)
        before_relu = output_of(ours, layer, images)
        assert (before_relu < 0).any()
        torch.testing.assert_close(
            F.relu(before_relu), expected, rtol=1e-4, atol=1e-4 * expected.std().item()
        )


def test_mobilenet_computes_what_torchvision_does_except_near_the_border() -> None:
    torch.manual_seed(0)
    theirs = randomised(torchvision.models.mobilenet_v2())
    ours = make("mobilenet_v2")
    ours.load_state_dict(ours.from_torchvision(theirs.state_dict()))
    images = torch.randn(1, 3, 129, 129)
    expected, got = (output_of(network, "features.6", images) for network in (theirs, ours))
    middle = (
        ...,
        slice(6, 11),
        slice(6, 11),
    )  # of 17x17: out of the border's reach through six blocks
    torch.testing.assert_close(
        got[middle], expected[middle], rtol=1e-4, atol=1e-4 * expected.std().item()
    )
    assert not torch.allclose(got[..., 0, :], expected[..., 0, :], rtol=1e-2)


@pytest.mark.parametrize(
    ("output_stride", "strides", "layer3", "layer4"),
    [(16, [1, 2, 2, 1], [1] * 6, [2, 4, 8]), (8, [1, 2, 1, 1], [2] * 6, [4, 8, 16])],
)
def test_bottleneck_nets_dilate_in_a_multi_grid(
    output_stride: int, strides: list[int], layer3: list[int], layer4: list[int]
) -> None:
    backbone = make("resnet50", width=0.25, output_stride=output_stride)
    convs = [[block.conv2 for block in stage(backbone, f"layer{i}")] for i in (1, 2, 3, 4)]
    assert [blocks[0].stride[0] for blocks in convs] == strides
    assert [conv.dilation[0] for conv in convs[2]] == layer3
    assert [conv.dilation[0] for conv in convs[3]] == layer4
    assert all(conv.padding == conv.dilation for blocks in convs for conv in blocks)


@pytest.mark.parametrize(("output_stride", "layer3", "layer4"), [(16, 1, 2), (8, 2, 4)])
def test_basic_nets_dilate_both_convolutions_and_have_no_multi_grid(
    output_stride: int, layer3: int, layer4: int
) -> None:
    backbone = make("resnet34", width=0.25, output_stride=output_stride)
    for path, dilation in (("layer3", layer3), ("layer4", layer4)):
        for block in stage(backbone, path):
            assert block.conv1.dilation == block.conv2.dilation == (dilation, dilation)


@pytest.mark.parametrize(
    ("output_stride", "dilations"),
    [(16, {17: 2}), (8, {11: 2, 12: 2, 13: 2, 14: 2, 15: 2, 16: 2, 17: 4})],
)
def test_mobilenet_dilates_what_follows_a_dropped_stride(
    output_stride: int, dilations: dict[int, int]
) -> None:
    backbone = make("mobilenet_v2", output_stride=output_stride)
    padded = {i: block.padding[0] for i, block in enumerate(stage(backbone, "features")) if i}
    assert padded == {i: dilations.get(i, 1) for i in range(1, 18)}
