"""Reading features out of a running network, by the name of a tap. One forward, listened to; never a second one."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn

from attnfd_ray import registry
from attnfd_ray.errors import ConfigError
from attnfd_ray.models.contracts import SegmentationModel


class TapRecorder:
    """Keeps what passed the named taps of `model` in its last forward, in `features`: name -> features_NCHW.

    Listens on the model itself, so a wrapper around it (DistributedDataParallel, a task) makes no difference. A feature
    is the tensor that the forward went on with, gradient and all; `clear` lets go of it, `close` stops listening.
    An unknown name is a ConfigError.
    """

    def __init__(self, model: SegmentationModel, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.features: dict[str, Tensor] = {}
        for name in self.names:
            if name not in model.taps:
                raise ConfigError(f"unknown tap '{name}'{registry.suggestion(name, list(model.taps))}")
        self._handles = [model.register_forward_pre_hook(self._start)]
        for name in self.names:
            module = model.get_submodule(model.taps[name])
            self._handles.append(module.register_forward_hook(partial(self._keep, name)))

    def _start(self, _module: nn.Module, _inputs: Any) -> None:
        self.clear()

    def _keep(self, name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.features[name] = output

    def clear(self) -> None:
        """Let go of the features; a dict taken before keeps its own."""
        self.features = {}

    def close(self) -> None:
        """Stop listening and let go of the features."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()
