"""Were the attention gates in a file ever trained? Told from their numbers alone.

The released networks carry CBAM gates (Woo et al., ECCV 2018) that their own `forward` does not
call, so a teacher's may be as they were born: linear weights uniform in +-1/sqrt(inputs), BatchNorm
1 and 0. A gate that learned has left those bounds or is no longer flat in them, and its BatchNorm
bias, which only a gradient can move, is not 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Verdict = Literal["untrained", "trained", "unsure"]

# sqrt(n) x the Kolmogorov-Smirnov distance that a uniform sample exceeds once in 10,000: 2 exp(-2
# x^2) = 1e-4
FLATNESS_LIMIT = 2.23
# of the 7x7x2 convolution's weights at birth: sqrt(2 / 49) as the released ResNet draws them,
# sqrt(2 / 98) Kaiming's
BORN_SPATIAL_STDS = (math.sqrt(2 / 49), math.sqrt(2 / 98))
_STANDARD_ERRORS = 4
_ROUNDED = 1 + 2**-10  # weights in half precision may round to just beyond the bound


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """What the weights of one gate say.

    `bound_ratios` are max|w| over the initial bound, 1 at most for weights as born, and `flatness`
    how far from uniform they are (below `FLATNESS_LIMIT` as born), both for the two linear layers
    of the channel gate. `batches_seen` is None where the file does not count them.
    """

    location: str
    verdict: Verdict
    bound_ratios: tuple[float, float]
    flatness: tuple[float, float]
    spatial_std: float
    norm_weight: float
    norm_bias: float
    batches_seen: int | None


def gate_shapes(gate: Mapping[str, Tensor], channels: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the tensors of a released gate for `channels` channels have, by name
    within the gate.
    """
    first = gate.get("ChannelGate.mlp.1.weight")
    hidden = max(1, first.shape[0]) if first is not None and first.dim() else 1
    norm = {
        f"SpatialGate.spatial.bn.{name}": (1,)
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    return {
        "ChannelGate.mlp.1.weight": (hidden, channels),
        "ChannelGate.mlp.1.bias": (hidden,),
        "ChannelGate.mlp.3.weight": (channels, hidden),
        "ChannelGate.mlp.3.bias": (channels,),
        "SpatialGate.spatial.conv.weight": (1, 2, 7, 7),
        **norm,
        "SpatialGate.spatial.bn.num_batches_tracked": (),
    }


def probe_gate(location: str, gate: Mapping[str, Tensor]) -> GateReport:
    """Return the verdict on a whole gate and the numbers it rests on.

    `untrained`: both linear layers lie flat within their initial bounds, the convolution's spread
    is an initial one, BatchNorm is exactly 1 and 0. `trained`: a linear layer does not and
    BatchNorm's bias moved. Else `unsure`: only a part learned, or the gate was born in another way.
    """
    layers = [gate[f"ChannelGate.mlp.{index}.weight"] for index in (1, 3)]
    ratios = [_bound_ratio(weight) for weight in layers]
    flatness = [_flatness(weight) for weight in layers]
    as_born = max(ratios) < _ROUNDED and max(flatness) < FLATNESS_LIMIT
    spatial = gate["SpatialGate.spatial.conv.weight"].double()
    spatial_std = spatial.std().item()
    weight, bias = (gate[f"SpatialGate.spatial.bn.{name}"].item() for name in ("weight", "bias"))
    spatial_as_born = (weight, bias) == (1, 0) and any(
        abs(spatial_std - born) < _STANDARD_ERRORS * born / math.sqrt(2 * (spatial.numel() - 1))
        for born in BORN_SPATIAL_STDS
    )
    verdict: Verdict = "unsure"
    if as_born and spatial_as_born:
        verdict = "untrained"
    elif not as_born and bias != 0:
        verdict = "trained"
    counter = gate.get("SpatialGate.spatial.bn.num_batches_tracked")
    return GateReport(
        location=location,
        verdict=verdict,
        bound_ratios=(ratios[0], ratios[1]),
        flatness=(flatness[0], flatness[1]),
        spatial_std=spatial_std,
        norm_weight=weight,
        norm_bias=bias,
        batches_seen=None if counter is None else int(counter.item()),
    )


def _bound_ratio(weight: Tensor) -> float:
    """Return max|w| / (1 / sqrt(inputs)) of a linear layer's weight [outputs, inputs]."""
    return weight.double().abs().max().item() * math.sqrt(weight.shape[1])


def _flatness(weight: Tensor) -> float:
    """Return sqrt(n) x the Kolmogorov-Smirnov distance of a weight [outputs, inputs] from its
    initial distribution.
    """
    bound = 1 / math.sqrt(weight.shape[1])
    expected = ((weight.double().flatten() / bound + 1) / 2).clamp(0, 1).sort().values
    steps = torch.arange(len(expected) + 1, dtype=torch.float64) / len(expected)
    distance = torch.maximum(steps[1:] - expected, expected - steps[:-1]).max()
    return distance.item() * math.sqrt(len(expected))
