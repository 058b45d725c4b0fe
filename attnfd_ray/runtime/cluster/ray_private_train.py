"""The private names of Ray Train that this package uses. Imports torch.

The broker and the Tune trial processes do without torch, so they must not import this file.
"""

from __future__ import annotations

from ray.train.torch.config import (
    _set_torch_distributed_env_vars as set_torch_distributed_env_vars,
)
from ray.train.torch.config import _setup_torch_process_group as setup_torch_process_group
from ray.train.torch.config import _TorchBackend as TorchBackend

__all__ = ["TorchBackend", "set_torch_distributed_env_vars", "setup_torch_process_group"]
