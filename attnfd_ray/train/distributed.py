"""The few collective operations a run needs; all of them do nothing in a run of one process."""

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
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Return the sum of `tensor` over all processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def broadcast_object(value: T) -> T:
    """Return what the process of rank 0 has for `value`, which must be picklable."""
    if not dist.is_initialized() or world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_gather_object(value: T) -> list[T]:
    """Return what each process has for `value`, which must be picklable, by rank."""
    if world_size() == 1:
        return [value]
    found: list[T] = [value] * world_size()
    dist.all_gather_object(found, value)
    return found


def broadcast_buffers(module: nn.Module) -> None:
    """Give every process the buffers of rank 0, so that all of them evaluate the same network."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def wrap_ddp(module: nn.Module, device: torch.device) -> nn.Module:
    """Return `module` as something that leaves every process the mean of all gradients after a
    backward pass.
    """
    if world_size() == 1:
        return module
    # running statistics are not looked at in training, and `broadcast_buffers` comes before they
    # are
    devices = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)


def convert_sync_batchnorm(module: AnyModule, device: torch.device) -> AnyModule:
    """Return `module` with BatchNorm statistics taken over all processes, where the device can.

    It replaces the BatchNorm modules, so it comes before anything listens to them or holds their
    parameters.
    """
    if world_size() == 1 or device.type != "cuda":
        return module
    shared: AnyModule = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return shared


def seed_everything(seed: int, *, epoch: int, rank: int) -> None:
    """Seed every random generator for one epoch of one process.

    Generators are never stored: seeding them anew each epoch makes a resumed run equal to one never
    stopped, on any number of processes.
    """
    entropy = np.random.SeedSequence([seed, epoch, rank]).generate_state(2)
    torch.manual_seed(int(entropy[0]))
    random.seed(int(entropy[1]))
    np.random.seed(int(entropy[1]))
