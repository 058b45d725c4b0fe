"""Stand-ins for the released checkpoints (tests/reference/README.md).

They have the released keys and shapes, and weights seeded by key.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

REFERENCE = Path(__file__).parents[1] / "reference"
NETWORKS = {
    "resnet101": "resnet101",
    "resnet18": "resnet18",
    "mobilenet": "mobilenet_v2",
}  # released name -> ours


def seeded_tensor(key: str, shape: list[int]) -> Tensor:
    rng = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    if key.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=rng)
    if key.endswith("running_mean"):
        return 0.1 * torch.randn(shape, generator=rng)
    if len(shape) >= 2:
        return torch.randn(shape, generator=rng) * math.sqrt(2 / math.prod(shape[1:]))
    if key.endswith("weight"):
        return 0.2 + 0.3 * torch.rand(shape, generator=rng)
    return 0.1 * torch.randn(shape, generator=rng)


def released_state(network: str) -> dict[str, Tensor]:
    shapes = json.loads((REFERENCE / "released_state_dict_keys.json").read_text())[network]
    return {key: seeded_tensor(key, shape) for key, shape in shapes.items()}


def golden_images(height: int, width: int) -> Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(11)) * 2 - 1
