"""Which gate refines which side's features, by the names the settings use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from attnfd_ray.distill.cbam import CBAM, Form, FrozenGate, ParameterFreeGate
from attnfd_ray.errors import CheckpointError
from attnfd_ray.models.files import cbam_state

StudentGate = Literal["learned", "parameter_free", "identity"]
TeacherGate = Literal["parameter_free", "random_frozen", "from_checkpoint", "identity"]

# Where the released networks keep the gate of a layer.
_RELEASED_PLACES = {"stage4": "backbone", "aspp": "aspp", "decoder": "decoder"}
_RELEASED_NAMES = {
    "ChannelGate.mlp.1.": "channel.mlp.0.",
    "ChannelGate.mlp.3.": "channel.mlp.2.",
    "SpatialGate.spatial.conv.": "spatial.conv.",
    "SpatialGate.spatial.bn.": "spatial.bn.",
}


def student_gate(
    kind: StudentGate, channels: int, form: Form, *, train_channel_mlp: bool = True
) -> nn.Module:
    """Return a gate for the student's features of `channels` channels."""
    if kind != "learned":
        return _weightless(kind, form)
    gate = CBAM(channels, form)
    if not train_channel_mlp and "channel" in form.parts:
        gate.channel.requires_grad_(False)
    return gate


def teacher_gate(
    kind: TeacherGate,
    channels: int,
    form: Form,
    *,
    layer: str,
    seed: int,
    teacher_file: Path | None,
    batch_statistics: bool,
) -> FrozenGate:
    """Return a gate for the teacher's features that never learns.

    Raises CheckpointError when the gate should come from the teacher's file and that holds none for
    `layer`.
    """
    if kind == "random_frozen":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return FrozenGate(CBAM(channels, form, frozen_statistics=batch_statistics))
    if kind == "from_checkpoint" and form.parts:
        return FrozenGate(_stored_gate(channels, form, layer, teacher_file, batch_statistics))
    return FrozenGate(_weightless(kind, form))


def _weightless(kind: StudentGate | TeacherGate, form: Form) -> nn.Module:
    return ParameterFreeGate(form) if kind == "parameter_free" else nn.Identity()


def _stored_gate(
    channels: int, form: Form, layer: str, file: Path | None, batch_statistics: bool
) -> CBAM:
    """Return the parts of the stored gate that `form` names; how many hidden channels it has, the
    file says.
    """
    place = _RELEASED_PLACES.get(layer)
    stored = cbam_state(file).get(place) if file and place else None
    if not stored:
        raise CheckpointError(
            f"{file or 'a teacher trained here'}: holds no attention gate for layer '{layer}'; "
            "use teacher_gate: random_frozen or parameter_free"
        )
    state = {}
    for name, tensor in stored.items():
        ours = next(
            (
                name.replace(old, new)
                for old, new in _RELEASED_NAMES.items()
                if name.startswith(old)
            ),
            name,
        )
        moves = "running_" in ours or "num_batches" in ours
        known = ours.startswith(("channel.", "spatial."))
        if not (batch_statistics and moves) and not (known and not ours.startswith(form.parts)):
            state[ours] = tensor
    first = state.get("channel.mlp.0.weight")
    hidden = first.shape[0] if first is not None and first.dim() else 1
    gate = CBAM(
        channels,
        replace(form, reduction_ratio=max(1, channels // max(1, hidden))),
        frozen_statistics=batch_statistics,
    )
    try:
        gate.load_state_dict(state)
    except RuntimeError:
        raise CheckpointError(
            f"{file}: its attention gate for '{layer}' does not fit {channels} channels"
        ) from None
    return gate
