"""A memory of the latest features of each class, of fixed size."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class ClassQueue(nn.Module):
    """A ring buffer for each of K classes: the last `size` features_C of the class.

    All its state is in buffers of constant shape, so a checkpoint contains it.

    >>> queue = ClassQueue(num_classes=2, size=3, channels=1)
    >>> queue.push(torch.tensor([[[5.0], [7.0]]]), torch.tensor([[True, False]]))
    >>> queue.pushed.tolist()
    [1, 0]
    >>> entries_EC, known_E = queue.draw(2)
    >>> entries_EC.shape, known_E.tolist()
    (torch.Size([4, 1]), [True, True, False, False])
    """

    entries: Tensor  # [K, size, C]
    pushed: Tensor  # [K], how many entries of each class were ever pushed

    def __init__(self, num_classes: int, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("entries", torch.zeros(num_classes, size, channels))
        self.register_buffer("pushed", torch.zeros(num_classes, dtype=torch.long))

    @torch.no_grad()
    def push(self, entries_MKC: Tensor, present_MK: Tensor) -> None:
        """Add the entries that are present, up to M for each class, in their order.

        Where they are more than `size`, the last ones stay. What all workers push goes into the
        queue of each worker, in the order of their ranks.
        """
        entries_MKC = _of_all_workers(entries_MKC)
        present_MK = _of_all_workers(present_MK)
        size = self.entries.shape[1]
        arriving_K = present_MK.sum(dim=0)
        order_MK = present_MK.cumsum(dim=0) - 1
        stay_MK = present_MK & (order_MK >= arriving_K - size)
        row, own_class = stay_MK.nonzero(as_tuple=True)
        position = (self.pushed[own_class] + order_MK[row, own_class]) % size
        self.entries[own_class, position] = entries_MKC[row, own_class].to(self.entries.dtype)
        self.pushed += arriving_K

    @torch.no_grad()
    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Return `count` entries of each class as entries_EC, and known_E, with E = K * count.

        known_E is False for entries of classes that were never pushed. Entries are drawn with
        replacement from torch's global generator.
        """
        num_classes, size, _ = self.entries.shape
        filled_K1 = self.pushed.clamp(max=size)[:, None]
        numbers = torch.randint(2**31, (num_classes, count), device=filled_K1.device)
        drawn = numbers % filled_K1.clamp(min=1)
        classes_K1 = torch.arange(num_classes, device=drawn.device)[:, None]
        entries_EC = self.entries[classes_K1, drawn].flatten(0, 1)
        known_E = (filled_K1 > 0).expand_as(drawn).flatten()
        return entries_EC, known_E


def _of_all_workers(tensor: Tensor) -> Tensor:
    """Return the tensors of all processes of the run, in order of rank, joined on the first axis.

    Every process gives the same shape.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    sent = tensor.contiguous()
    if tensor.dtype == torch.bool:  # not every backend gathers booleans
        sent = tensor.to(torch.uint8)
    parts = [torch.empty_like(sent) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, sent)
    return torch.cat(parts).to(tensor.dtype)
