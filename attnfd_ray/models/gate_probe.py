"""Whether the attention gates in a file were ever trained, judged from their weights alone.

The released networks contain CBAM gates (Woo et al., ECCV 2018) that their own `forward` does not
call, so a teacher's gates may still have their first weights. Those are, for linear layers, uniform
in +-1/sqrt(inputs), and for BatchNorm 1 and 0. After training, weights exceed those bounds or are
no longer uniform, and the bias of BatchNorm, which only a gradient can change, is not 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attnfd_ray.models.tensors import Tensors

Verdict = Literal["untrained", "trained", "unsure"]

# sqrt(n) x the Kolmogorov-Smirnov distance that a uniform sample exceeds once in 10,000: 2 exp(-2
# x^2) = 1e-4
FLATNESS_LIMIT = 2.23
# initial std of the 7x7x2 convolution's weights: sqrt(2 / 49) as the released ResNet draws them,
# sqrt(2 / 98) Kaiming's
BORN_SPATIAL_STDS = (math.sqrt(2 / 49), math.sqrt(2 / 98))
_STANDARD_ERRORS = 4
_ROUNDED = 1 + 2**-10  # weights in half precision may round to just beyond the bound


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """The verdict on one gate, and the numbers behind it.

    Both pairs are for the two linear layers of the channel gate. `bound_ratios` are max|w| / the
    initial bound, at most 1 for first weights. `flatness` is the distance from a uniform
    distribution, below `FLATNESS_LIMIT` for first weights. `spatial_std` is of the convolution's
    weights. `norm_weight` and `norm_bias` are BatchNorm's. `batches_seen` is None where the file
    does not count them.
    """

    location: str
    verdict: Verdict
    bound_ratios: tuple[float, float]
    flatness: tuple[float, float]
    spatial_std: float
    norm_weight: float
    norm_bias: float
    batches_seen: int | None


def gate_shapes(gate: Tensors, channels: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a released gate for `channels` channels has, by name in the gate.

    The number of hidden channels is taken from `gate`, 1 where it has no first layer.
    """
    hidden = 1
    first = gate.get("ChannelGate.mlp.1.weight")
    if first is not None and first.dim():
        hidden = max(1, first.shape[0])
    return {
        "ChannelGate.mlp.1.weight": (hidden, channels),
        "ChannelGate.mlp.1.bias": (hidden,),
        "ChannelGate.mlp.3.weight": (channels, hidden),
        "ChannelGate.mlp.3.bias": (channels,),
        "SpatialGate.spatial.conv.weight": (1, 2, 7, 7),
        "SpatialGate.spatial.bn.weight": (1,),
        "SpatialGate.spatial.bn.bias": (1,),
        "SpatialGate.spatial.bn.running_mean": (1,),
        "SpatialGate.spatial.bn.running_var": (1,),
        "SpatialGate.spatial.bn.num_batches_tracked": (),
    }


def probe_gate(location: str, gate: Tensors) -> GateReport:
    """Return the verdict on a complete gate and the numbers behind it.

    - `untrained`: both linear layers are uniform within their initial bounds, the std of the
      convolution's weights is an initial one, and BatchNorm is exactly 1 and 0.
    - `trained`: a linear layer is not, and BatchNorm's bias is not 0.
    - `unsure`: only a part learned, or the gate was initialised in another way.
    """
    first = gate["ChannelGate.mlp.1.weight"]
    last = gate["ChannelGate.mlp.3.weight"]
    bound_ratios = (_bound_ratio(first), _bound_ratio(last))
    flatness = (_flatness(first), _flatness(last))
    spatial_weight = gate["SpatialGate.spatial.conv.weight"].double()
    norm_weight = gate["SpatialGate.spatial.bn.weight"].item()
    norm_bias = gate["SpatialGate.spatial.bn.bias"].item()
    channel_as_born = max(bound_ratios) < _ROUNDED and max(flatness) < FLATNESS_LIMIT
    spatial_as_born = (norm_weight, norm_bias) == (1, 0) and _has_initial_std(spatial_weight)
    verdict: Verdict = "unsure"
    if channel_as_born and spatial_as_born:
        verdict = "untrained"
    elif not channel_as_born and norm_bias != 0:
        verdict = "trained"
    return GateReport(
        location=location,
        verdict=verdict,
        bound_ratios=bound_ratios,
        flatness=flatness,
        spatial_std=spatial_weight.std().item(),
        norm_weight=norm_weight,
        norm_bias=norm_bias,
        batches_seen=_batches_seen(gate),
    )


def _has_initial_std(weight: Tensor) -> bool:
    std = weight.std().item()
    root = math.sqrt(2 * (weight.numel() - 1))
    return any(abs(std - born) < _STANDARD_ERRORS * born / root for born in BORN_SPATIAL_STDS)


def _batches_seen(gate: Tensors) -> int | None:
    counter = gate.get("SpatialGate.spatial.bn.num_batches_tracked")
    if counter is None:
        return None
    return int(counter.item())


def _bound_ratio(weight: Tensor) -> float:
    """Return max|w| / (1 / sqrt(inputs)) of a linear layer's weight [outputs, inputs]."""
    largest = weight.double().abs().max().item()
    return largest * math.sqrt(weight.shape[1])


def _flatness(weight: Tensor) -> float:
    """Return sqrt(n) x the Kolmogorov-Smirnov distance of a weight [outputs, inputs].

    The distance is from the initial uniform distribution.
    """
    bound = 1 / math.sqrt(weight.shape[1])
    sorted_weights = weight.double().flatten().sort().values
    num_weights = len(sorted_weights)
    expected = ((sorted_weights / bound + 1) / 2).clamp(0, 1)  # of a uniform distribution
    steps = torch.arange(num_weights + 1, dtype=torch.float64) / num_weights
    above = steps[1:] - expected
    below = expected - steps[:-1]
    distance = torch.maximum(above, below).max()
    return distance.item() * math.sqrt(num_weights)
