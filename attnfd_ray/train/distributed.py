"""The collective operations of a run. In a run of one process all of them do nothing. No ray."""

from __future__ import annotations

import random
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def world_size() -> int:
    """Return the number of processes of this run."""
    if not dist.is_initialized():
        return 1
    return dist.get_world_size()


def rank() -> int:
    """Return the number of this process, from 0."""
    if not dist.is_initialized():
        return 0
    return dist.get_rank()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Return the sum of `tensor` over all processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def broadcast_object(value: T) -> T:
    """Return rank 0's `value`, which must be picklable."""
    if not dist.is_initialized() or world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def all_gather_object(value: T) -> list[T]:
    """Return the `value` of each process, by rank; it must be picklable."""
    if world_size() == 1:
        return [value]
    values: list[T] = [value] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_buffers(module: nn.Module) -> None:
    """Give all processes the buffers of rank 0, so that all of them evaluate the same network."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def wrap_ddp(module: nn.Module, device: torch.device) -> nn.Module:
    """Return `module` wrapped so that a backward pass averages gradients over all processes."""
    if world_size() == 1:
        return module
    devices = None
    if device.type == "cuda":
        devices = [device.index]
    # Training does not use running statistics, and evaluation calls `broadcast_buffers` first.
    return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)


def convert_sync_batchnorm(module: AnyModule, device: torch.device) -> AnyModule:
    """Return `module` with BatchNorm statistics over all processes, where the device supports it.

    It replaces the BatchNorm modules. Call it before anything hooks them or holds their parameters.
    """
    if world_size() == 1 or device.type != "cuda":
        return module
    converted: AnyModule = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return converted


def seed_everything(seed: int, *, epoch: int, rank: int) -> None:
    """Seed every random generator for one epoch of one process.

    The state of generators is never stored. Since they are seeded anew each epoch, a resumed run
    equals one that was never stopped, with any number of processes.
    """
    entropy = np.random.SeedSequence([seed, epoch, rank]).generate_state(2)
    torch.manual_seed(int(entropy[0]))
    random.seed(int(entropy[1]))
    np.random.seed(int(entropy[1]))
