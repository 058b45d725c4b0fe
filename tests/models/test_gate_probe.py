"""Whether a gate looks trained: with first weights, after training, and in between."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attnfd_ray.models.gate_probe import FLATNESS_LIMIT, gate_shapes, probe_gate

# channels, hidden channels: backbones of ResNet-101, ResNet-18 and MobileNetV2, then a pyramid or
# decoder
SIZES = [(2048, 128), (512, 32), (320, 20), (256, 16)]


def born_gate(
    channels: int, hidden: int, *, seed: int = 0, spatial_std: float = math.sqrt(2 / 98)
) -> dict[str, Tensor]:
    """Return a gate as torch makes its layers, under the released names."""
    torch.manual_seed(seed)
    first, last, norm = nn.Linear(channels, hidden), nn.Linear(hidden, channels), nn.BatchNorm2d(1)
    layers = {"ChannelGate.mlp.1": first, "ChannelGate.mlp.3": last, "SpatialGate.spatial.bn": norm}
    tensors = {
        f"{path}.{name}": tensor
        for path, layer in layers.items()
        for name, tensor in layer.state_dict().items()
    }
    return tensors | {"SpatialGate.spatial.conv.weight": spatial_std * torch.randn(1, 2, 7, 7)}


def learned(gate: dict[str, Tensor], *parts: str) -> dict[str, Tensor]:
    """Return the gate after each weight of `parts` moved by about a tenth of its layer's range."""
    moved = {
        name: tensor
        for name, tensor in gate.items()
        if name.startswith(parts) and name.endswith(("weight", "bias"))
    }
    return gate | {
        name: tensor + 0.1 * tensor.abs().max().clamp(min=0.1) * torch.randn(tensor.shape)
        for name, tensor in moved.items()
    }


def verdict(gate: dict[str, Tensor]) -> str:
    return probe_gate("aspp", gate).verdict


@pytest.mark.parametrize(
    "spatial_std", [math.sqrt(2 / 98), math.sqrt(2 / 49)], ids=["kaiming", "released resnet"]
)
@pytest.mark.parametrize(("channels", "hidden"), SIZES)
def test_a_gate_as_torch_makes_it_is_untrained(
    channels: int, hidden: int, spatial_std: float
) -> None:
    for seed in range(5):
        gate = born_gate(channels, hidden, seed=seed, spatial_std=spatial_std)
        report = probe_gate("aspp", gate)
        assert report.verdict == "untrained"
        assert (report.location, report.norm_weight, report.norm_bias, report.batches_seen) == (
            "aspp",
            1,
            0,
            0,
        )
        # the largest of n uniform weights lies about 1/n below the bound; 20/n is e^-20 unlikely
        for ratio in report.bound_ratios:
            assert 1 - 20 / (channels * hidden) < ratio <= 1
        assert max(report.flatness) < FLATNESS_LIMIT


def test_the_bounds_are_those_of_the_released_teachers_layers() -> None:
    gate = born_gate(2048, 128)
    report = probe_gate("backbone", gate)
    first, last = (gate[f"ChannelGate.mlp.{index}.weight"].abs().max().item() for index in (1, 3))
    # 1/sqrt(2048) and 1/sqrt(128), to the digits that the method notes give
    assert [first, last] == pytest.approx(
        [0.0221 * report.bound_ratios[0], 0.0884 * report.bound_ratios[1]], rel=1e-3
    )


def test_flatness_is_the_distance_of_kolmogorov_and_smirnov() -> None:
    gate = born_gate(4, 1)
    gate["ChannelGate.mlp.1.weight"] = torch.tensor(
        [[-0.25, 0.0, 0.25, 0.5]]
    )  # bound 1/2: at 1/4, 1/2, 3/4 and 1
    gate["ChannelGate.mlp.3.weight"] = torch.zeros(
        4, 1
    )  # all in the middle: half of them too early
    # steps 0, 1/4, 1/2, 3/4, 1 against those: 1/4 apart; sqrt(4) times that
    assert probe_gate("aspp", gate).flatness == pytest.approx((0.5, 1.0))


@pytest.mark.parametrize(("channels", "hidden"), SIZES)
def test_a_gate_whose_parts_all_learned_is_trained(channels: int, hidden: int) -> None:
    for seed in range(5):
        assert (
            verdict(learned(born_gate(channels, hidden, seed=seed), "ChannelGate", "SpatialGate"))
            == "trained"
        )


def test_a_gate_that_was_trained_by_gradient_descent_is_trained() -> None:
    gate = born_gate(64, 4)
    wanted = torch.rand(8, 64)
    leaves = {
        name: tensor.clone().requires_grad_()
        for name, tensor in gate.items()
        if tensor.is_floating_point()
    }
    used = [tensor for name, tensor in leaves.items() if "running" not in name]
    optimiser = torch.optim.SGD(used, lr=0.5, momentum=0.9)
    features = torch.randn(8, 64, 9, 9)
    for _ in range(60):
        hidden = (
            features.mean((2, 3)) @ leaves["ChannelGate.mlp.1.weight"].T
            + leaves["ChannelGate.mlp.1.bias"]
        )
        mask_NC = (
            hidden.relu() @ leaves["ChannelGate.mlp.3.weight"].T + leaves["ChannelGate.mlp.3.bias"]
        )
        pooled = torch.stack([features.amax(1), features.mean(1)], 1)
        spatial = nn.functional.conv2d(pooled, leaves["SpatialGate.spatial.conv.weight"], padding=3)
        scale, shift = (
            leaves["SpatialGate.spatial.bn.weight"],
            leaves["SpatialGate.spatial.bn.bias"],
        )
        mask_N1HW = nn.functional.batch_norm(
            spatial, None, None, scale, shift, training=True
        ).sigmoid()
        loss = (mask_NC.sigmoid() - wanted).square().mean() * 64 + (mask_N1HW - 0.8).square().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert verdict({name: tensor.detach() for name, tensor in leaves.items()}) == "trained"


def test_a_gate_that_ran_and_did_not_learn_is_untrained() -> None:
    gate = born_gate(256, 16) | {
        "SpatialGate.spatial.bn.running_mean": torch.tensor([0.3]),
        "SpatialGate.spatial.bn.num_batches_tracked": torch.tensor(29_280),
    }
    report = probe_gate("aspp", gate)
    assert (report.verdict, report.batches_seen) == ("untrained", 29_280)


def test_a_gate_of_which_only_a_part_learned_is_unsure() -> None:
    for part in ("ChannelGate", "SpatialGate"):
        assert verdict(learned(born_gate(256, 16), part)) == "unsure"


def test_a_gate_that_only_shrank_is_unsure() -> None:
    # weight decay without a gradient: everything smaller, BatchNorm's bias still 0
    gate = {
        name: 0.9 * tensor if name.endswith(("weight", "bias")) else tensor
        for name, tensor in born_gate(256, 16).items()
    }
    assert verdict(gate) == "unsure"


def test_a_gate_that_was_born_in_another_way_is_unsure() -> None:
    normal = born_gate(256, 16) | {"ChannelGate.mlp.1.weight": torch.randn(16, 256) / 16}
    assert verdict(normal) == "unsure"
    assert verdict(born_gate(256, 16, spatial_std=1.0)) == "unsure"


def test_half_precision_does_not_make_a_gate_look_trained() -> None:
    gate = born_gate(256, 16)
    assert verdict({name: tensor.half() for name, tensor in gate.items()}) == "untrained"


def test_a_file_that_does_not_count_batches_is_judged_by_the_rest() -> None:
    gate = born_gate(256, 16)
    counted = probe_gate("aspp", gate)
    del gate["SpatialGate.spatial.bn.num_batches_tracked"]
    assert probe_gate("aspp", gate) == replace(counted, batches_seen=None)


def test_the_shapes_of_a_gate_are_those_of_its_layers() -> None:
    for channels, hidden in SIZES:
        gate = born_gate(channels, hidden)
        assert {name: tuple(tensor.shape) for name, tensor in gate.items()} == gate_shapes(
            gate, channels
        )
