"""The preset attnfd_release on arrays that the released code wrote (tests/reference/README.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnfd_ray.distill.attnfd_variants import AttnFDRelease
from attnfd_ray.distill.method import Networks

REFERENCE = Path(__file__).parents[1] / "reference"
LAYERS = ["stage4", "aspp", "decoder"]
LABELS = torch.zeros(3, 1, 1, dtype=torch.long)
GATE_KEYS = {
    "channel.mlp.0.weight": "mlp0_weight",
    "channel.mlp.0.bias": "mlp0_bias",
    "channel.mlp.2.weight": "mlp1_weight",
    "channel.mlp.2.bias": "mlp1_bias",
    "spatial.conv.weight": "spatial_conv_weight",
    "spatial.bn.weight": "spatial_bn_weight",
    "spatial.bn.bias": "spatial_bn_bias",
}
TOLERANCE = 1e-9  # both sides are float64; only the order of their sums differs


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(array)
        for name, array in np.load(REFERENCE / "attnfd_loss.npz").items()
    }


@pytest.fixture
def method(golden: Mapping[str, Tensor]) -> AttnFDRelease:
    """Return the preset in train mode with the gates and connectors of the arrays."""
    settings = AttnFDRelease.Settings()
    assert (settings.layers, settings.loss_weight) == (LAYERS, golden["lam"].item())
    networks = Networks(
        student_channels={
            layer: golden[f"student_feature_{i}"].shape[1] for i, layer in enumerate(LAYERS)
        },
        teacher_channels={
            layer: golden[f"teacher_feature_{i}"].shape[1] for i, layer in enumerate(LAYERS)
        },
    )
    method = AttnFDRelease(settings, networks).double().train()
    for i, layer in enumerate(LAYERS):
        for side, gate in (
            ("student", method.student_gates[layer]),
            ("teacher", method.teacher_gates[layer].get_submodule("gate")),
        ):
            copy_into(
                gate, {ours: golden[f"{side}_{theirs}_{i}"] for ours, theirs in GATE_KEYS.items()}
            )
        names = {"0.weight": "conv_weight", "1.weight": "bn_weight", "1.bias": "bn_bias"}
        copy_into(
            method.connectors[layer],
            {ours: golden[f"connector_{theirs}_{i}"] for ours, theirs in names.items()},
        )
    return method


def copy_into(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fill every parameter of `module`, each from its own tensor."""
    assert dict(module.named_parameters()).keys() == tensors.keys()
    for name, tensor in tensors.items():
        module.get_parameter(name).data.copy_(tensor)


def features(golden: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    return {layer: golden[f"{side}_feature_{i}"].clone() for i, layer in enumerate(LAYERS)}


def test_the_loss_and_its_gradient_are_those_of_the_released_code(
    golden: Mapping[str, Tensor], method: AttnFDRelease
) -> None:
    student = {
        layer: feature.requires_grad_() for layer, feature in features(golden, "student").items()
    }
    terms = method(student, features(golden, "teacher"), LABELS)
    assert method.loss_over_batch_size
    loss = torch.stack(list(terms.values())).sum() / len(
        LABELS
    )  # as the training loop divides every term
    loss.backward()  # type: ignore[no-untyped-call]
    assert list(terms) == [f"attnfd_release/{layer}" for layer in LAYERS]
    assert abs(loss.item() - golden["loss"].item()) < TOLERANCE
    for i, layer in enumerate(LAYERS):
        gradient = student[layer].grad
        assert gradient is not None
        assert (gradient - golden[f"student_feature_grad_{i}"]).abs().max() < TOLERANCE


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_the_refined_features_are_those_of_the_released_code(
    side: str, golden: Mapping[str, Tensor], method: AttnFDRelease
) -> None:
    gates = method.student_gates if side == "student" else method.teacher_gates
    for i, (layer, feature) in enumerate(features(golden, side).items()):
        refined = gates[layer](feature)
        assert (refined - golden[f"{side}_refined_{i}"]).abs().max() < TOLERANCE


def test_as_the_teacher_is_in_train_mode_its_gate_looks_at_the_batch(
    golden: Mapping[str, Tensor], method: AttnFDRelease
) -> None:
    gate, feature = method.teacher_gates["stage4"], golden["teacher_feature_0"]
    assert not list(gate.buffers())  # no running statistics that could move
    whole, alone = gate(feature), gate(feature[:1])
    assert not torch.allclose(whole[:1], alone)
