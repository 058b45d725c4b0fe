"""A memory of the latest features of each class, as many as it was made for."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class ClassQueue(nn.Module):
    """The last `size` features of each of K classes; the oldest give way.

    All it knows is in buffers whose shapes never change, so a checkpoint carries it.
    """

    entries: Tensor  # [K, size, C]
    pushed: Tensor  # [K], how many ever came

    def __init__(self, num_classes: int, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("entries", torch.zeros(num_classes, size, channels))
        self.register_buffer("pushed", torch.zeros(num_classes, dtype=torch.long))

    @torch.no_grad()
    def push(self, entries_MKC: Tensor, present_MK: Tensor) -> None:
        """Add the entries that are present, up to M for each class, in their order; of too many,
        the last stay.

        Everything that all workers push goes into the queue of each, in the order of their ranks.
        """
        entries_MKC, present_MK = _of_all_workers(entries_MKC), _of_all_workers(present_MK)
        size = self.entries.shape[1]
        arriving_K, order_MK = present_MK.sum(dim=0), present_MK.cumsum(dim=0) - 1
        stay = present_MK & (order_MK >= arriving_K - size)
        row, own_class = stay.nonzero(as_tuple=True)
        place = (self.pushed[own_class] + order_MK[row, own_class]) % size
        self.entries[own_class, place] = entries_MKC[row, own_class].to(self.entries.dtype)
        self.pushed += arriving_K

    @torch.no_grad()
    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Return `count` entries_EC of each class, and known_E: False for those of classes that
        never came.

        They are drawn with replacement, by torch's global generator.
        """
        num_classes, size, _ = self.entries.shape
        filled_K1 = self.pushed.clamp(max=size)[:, None]
        drawn = torch.randint(
            2**31, (num_classes, count), device=filled_K1.device
        ) % filled_K1.clamp(min=1)
        entries_EC = self.entries[
            torch.arange(num_classes, device=drawn.device)[:, None], drawn
        ].flatten(0, 1)
        return entries_EC, (filled_K1 > 0).expand_as(drawn).flatten()


def _of_all_workers(tensor: Tensor) -> Tensor:
    """Return the tensors of all processes of the run, one after the other; every one has the same
    shape.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    # bytes, since not every backend gathers truth values
    sent = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor.contiguous()
    parts = [torch.empty_like(sent) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, sent)
    return torch.cat(parts).to(tensor.dtype)
