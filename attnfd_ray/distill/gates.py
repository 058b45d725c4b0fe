"""Which gate refines which side's features, by the names the settings use."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from attnfd_ray.distill.cbam import CBAM, FrozenGate, ParameterFreeGate
from attnfd_ray.errors import CheckpointError
from attnfd_ray.models.files import cbam_state

# Where the released networks keep the gate of a layer.
_RELEASED_PLACES = {"stage4": "backbone", "aspp": "aspp", "decoder": "decoder"}
_RELEASED_NAMES = {
    "ChannelGate.mlp.1.": "channel.mlp.0.",
    "ChannelGate.mlp.3.": "channel.mlp.2.",
    "SpatialGate.spatial.conv.": "spatial.conv.",
    "SpatialGate.spatial.bn.": "spatial.bn.",
}


def student_gate(kind: str, channels: int, reduction_ratio: int) -> nn.Module:
    """Return a gate for the student's features of `channels` channels."""
    if kind == "learned":
        return CBAM(channels, reduction_ratio=reduction_ratio)
    return ParameterFreeGate() if kind == "parameter_free" else nn.Identity()


def teacher_gate(
    kind: str,
    channels: int,
    *,
    layer: str,
    reduction_ratio: int,
    seed: int,
    teacher_file: Path | None,
    batch_statistics: bool,
) -> FrozenGate:
    """Return a gate for the teacher's features that never learns.

    Raises CheckpointError when the gate should come from the teacher's file and that holds none for `layer`.
    """
    if kind == "random_frozen":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            gate: nn.Module = CBAM(channels, reduction_ratio=reduction_ratio, frozen_statistics=batch_statistics)
    elif kind == "from_checkpoint":
        gate = _stored_gate(channels, layer, teacher_file, batch_statistics)
    else:
        gate = ParameterFreeGate() if kind == "parameter_free" else nn.Identity()
    return FrozenGate(gate)


def _stored_gate(channels: int, layer: str, file: Path | None, batch_statistics: bool) -> CBAM:
    place = _RELEASED_PLACES.get(layer)
    stored = cbam_state(file).get(place) if file and place else None
    if not stored:
        raise CheckpointError(
            f"{file or 'a teacher trained here'}: holds no attention gate for layer '{layer}'; "
            "use teacher_gate: parameter_free"
        )
    state = {}
    for name, tensor in stored.items():
        ours = next((name.replace(old, new) for old, new in _RELEASED_NAMES.items() if name.startswith(old)), name)
        if not (batch_statistics and ("running_" in ours or "num_batches" in ours)):
            state[ours] = tensor
    hidden = state["channel.mlp.0.weight"].shape[0] if "channel.mlp.0.weight" in state else 1
    gate = CBAM(channels, reduction_ratio=max(1, channels // hidden), frozen_statistics=batch_statistics)
    try:
        gate.load_state_dict(state)
    except RuntimeError:
        raise CheckpointError(f"{file}: its attention gate for '{layer}' does not fit {channels} channels") from None
    return gate
