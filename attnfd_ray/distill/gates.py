"""The gates that settings can name, for the student's and for the teacher's features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from attnfd_ray.distill.cbam import CBAM, Form, FrozenGate, ParameterFreeGate
from attnfd_ray.errors import CheckpointError
from attnfd_ray.models.files import cbam_state
from attnfd_ray.models.tensors import Tensors

StudentGate = Literal["learned", "parameter_free", "identity"]
TeacherGate = Literal["parameter_free", "random_frozen", "from_checkpoint", "identity"]

# layer -> the module of the released networks that holds its gate
_RELEASED_LOCATIONS = {"stage4": "backbone", "aspp": "aspp", "decoder": "decoder"}
_RELEASED_NAMES = {
    "ChannelGate.mlp.1.": "channel.mlp.0.",
    "ChannelGate.mlp.3.": "channel.mlp.2.",
    "SpatialGate.spatial.conv.": "spatial.conv.",
    "SpatialGate.spatial.bn.": "spatial.bn.",
}


def student_gate(
    kind: StudentGate, channels: int, form: Form, *, train_channel_mlp: bool = True
) -> nn.Module:
    """Return a gate for the student's features_NCHW with C = `channels`.

    Without `train_channel_mlp` the MLP of a learned channel gate keeps its first weights.
    """
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
    """Return a gate for the teacher's features_NCHW with C = `channels`, which never learns.

    `random_frozen` draws its weights from `seed` and leaves torch's global generator as it is. With
    `batch_statistics` its BatchNorm normalises by the batch. Raises CheckpointError where
    `from_checkpoint` finds no gate for `layer` in the teacher's file, or one for other channels.
    """
    if kind == "random_frozen":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return FrozenGate(CBAM(channels, form, frozen_statistics=batch_statistics))
    if kind == "from_checkpoint" and form.parts:
        return FrozenGate(_stored_gate(channels, form, layer, teacher_file, batch_statistics))
    return FrozenGate(_weightless(kind, form))


def _weightless(kind: StudentGate | TeacherGate, form: Form) -> nn.Module:
    if kind == "parameter_free":
        return ParameterFreeGate(form)
    return nn.Identity()


def _stored_gate(
    channels: int, form: Form, layer: str, file: Path | None, batch_statistics: bool
) -> CBAM:
    """Return the parts of the stored gate that `form` names, with the file's hidden channels."""
    state = {
        _our_name(name): tensor
        for name, tensor in _released_state(layer, file).items()
        if _is_wanted(_our_name(name), form, batch_statistics)
    }
    reduction_ratio = max(1, channels // _hidden_channels(state))
    gate = CBAM(
        channels,
        replace(form, reduction_ratio=reduction_ratio),
        frozen_statistics=batch_statistics,
    )
    try:
        gate.load_state_dict(state)
    except RuntimeError:
        raise CheckpointError(
            f"{file}: its attention gate for '{layer}' does not fit {channels} channels"
        ) from None
    return gate


def _released_state(layer: str, file: Path | None) -> Tensors:
    """Return the tensors of the layer's gate in the file, by the names they have there."""
    location = _RELEASED_LOCATIONS.get(layer)
    stored: Tensors = {}
    if file is not None and location is not None:
        stored = cbam_state(file).get(location, {})
    if not stored:
        raise CheckpointError(
            f"{file or 'a teacher trained here'}: holds no attention gate for layer '{layer}'; "
            "use teacher_gate: random_frozen or parameter_free"
        )
    return stored


def _our_name(name: str) -> str:
    for released, ours in _RELEASED_NAMES.items():
        if name.startswith(released):
            return name.replace(released, ours)
    return name


def _is_wanted(name: str, form: Form, batch_statistics: bool) -> bool:
    """Return whether a gate of this form has such a tensor, or no gate has, which loading refuses.

    With `batch_statistics` a gate has no running statistics.
    """
    is_statistic = "running_" in name or "num_batches" in name
    if batch_statistics and is_statistic:
        return False
    is_part = name.startswith(("channel.", "spatial."))
    return name.startswith(form.parts) or not is_part


def _hidden_channels(state: Tensors) -> int:
    first = state.get("channel.mlp.0.weight")
    if first is None or not first.dim():
        return 1
    return max(1, first.shape[0])
