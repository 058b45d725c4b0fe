"""A packed network gives the same output as before, at any size and precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.models import build_model
from attnfd_ray.models.packed_conv import PackedConv2d, pack_convolutions


@pytest.fixture(scope="module", params=["resnet18", "mobilenet_v2"])
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = (
        build_model(ModelSettings(backbone=request.param, width=0.25), num_classes=5)
        .eval()
        .requires_grad_(False)
    )
    packed = copy.deepcopy(plain)
    pack_convolutions(packed)
    assert sum(isinstance(module, PackedConv2d) for module in packed.modules()) > 20
    assert not any(type(module) is nn.Conv2d for module in packed.modules())
    return plain, packed


def images(height: int, width: int) -> torch.Tensor:
    return torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(height))


def test_it_answers_as_before_at_one_size_after_another(pair: tuple[nn.Module, nn.Module]) -> None:
    plain, packed = pair
    for size in [(33, 33), (40, 56), (33, 33)]:
        # fp32 sums in another order: some 1e-7 a layer over 20 to 60 layers, on logits of order 1
        assert torch.allclose(packed(images(*size)), plain(images(*size)), rtol=1e-4, atol=1e-4)


def test_packing_and_unpacking_leave_no_trace_in_half_precision(
    pair: tuple[nn.Module, nn.Module],
) -> None:
    plain, packed = pair
    packed(images(33, 33))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(packed(images(33, 33)), plain(images(33, 33)))


def test_it_may_be_made_double_and_back(pair: tuple[nn.Module, nn.Module]) -> None:
    plain, packed = pair
    packed(images(33, 33))
    assert torch.equal(
        packed.double()(images(33, 33).double()),
        copy.deepcopy(plain).double()(images(33, 33).double()),
    )
    packed.float()


def test_a_convolution_with_a_hook_stays_as_it_is() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)).requires_grad_(False)
    heard: list[torch.Tensor] = []
    network[1].register_forward_hook(lambda module, inputs, output: heard.append(output))
    pack_convolutions(network)
    network(images(8, 8))
    assert isinstance(network[0], PackedConv2d)
    assert len(heard) == 1
