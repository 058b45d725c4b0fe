"""Reading features out of a running network, by the name of a tap. One forward, listened to; never
a second one.

A tap is one of the names that a network gives (`stage4`), or the path of any module in it
(`encoder.layer2`), whose output it is; where that is several tensors, brackets say which
(`encoder[3]`, `backbone[out]`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from attnfd_ray import registry
from attnfd_ray.errors import ConfigError

if TYPE_CHECKING:
    from attnfd_ray.models.base import SegmentationModel

_PATH = re.compile(r"(?P<module>\w+(\.\w+)*)(?P<picks>(\[\w+\])*)")


class TapShape(NamedTuple):
    """How deep a feature is, and how many pixels of the image one of its own stands for, in
    height.
    """

    channels: int
    stride: int


class TapRecorder:
    """Keeps what passed the named taps of `model` in its last forward, in `features`: name ->
    features_NCHW.

    Listens on the model itself, so a wrapper around it (DistributedDataParallel, a task) makes no
    difference. A feature is the tensor that the forward went on with, gradient and all; `clear`
    lets go of it, `close` stops listening. An unknown name is a ConfigError; so is, once the model
    runs, a module whose output is no such tensor.
    """

    def __init__(self, model: SegmentationModel, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.features: dict[str, Tensor] = {}
        places = {name: locate(model, name) for name in self.names}
        self._handles = [model.register_forward_pre_hook(self._start)]
        for name, (module, picks) in places.items():
            self._handles.append(module.register_forward_hook(partial(self._keep, name, picks)))

    def _start(self, _module: nn.Module, _inputs: Any) -> None:
        self.clear()

    def _keep(
        self, name: str, picks: tuple[str, ...], _module: nn.Module, _inputs: Any, output: Any
    ) -> None:
        self.features[name] = _picked(name, picks, output)

    def clear(self) -> None:
        """Let go of the features; a dict taken before keeps its own."""
        self.features = {}

    def close(self) -> None:
        """Stop listening and let go of the features."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()


def locate(model: SegmentationModel, name: str) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the module that a tap listens to, and the part of its output; ConfigError for an
    unknown one.
    """
    match = _PATH.fullmatch(model.taps.get(name, name))
    try:
        module = model.get_submodule(match["module"] if match else ".")
    except AttributeError:
        paths = [path for path, _ in model.named_modules() if path] if "." in name else []
        raise ConfigError(
            f"unknown tap '{name}'{registry.suggestion(name, [*model.taps, *paths])}"
        ) from None
    return module, tuple(re.findall(r"\w+", match["picks"])) if match else ()


def _picked(name: str, picks: tuple[str, ...], output: Any) -> Tensor:
    for pick in picks:
        try:
            output = output[pick] if isinstance(output, Mapping) else output[int(pick)]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ConfigError(
                f"tap '{name}': there is no [{pick}] in {_described(output)}"
            ) from None
    if not isinstance(output, Tensor) or output.ndim != 4:
        raise ConfigError(
            f"tap '{name}': needs one feature map [N, C, H, W], its module gives "
            f"{_described(output)}"
        )
    return output


def _described(output: Any) -> str:
    """Say what a module returned, in so far as one has to know it to name a tap."""
    if isinstance(output, Tensor):
        return f"a tensor {list(output.shape)}"
    if isinstance(output, Mapping):
        return f"a dict; name one of {', '.join(f'[{key}]' for key in output)}"
    if isinstance(output, list | tuple):
        return f"{len(output)} of them; name one, [0] to [{len(output) - 1}]"
    return f"a {type(output).__name__}"


def tap_shapes(model: SegmentationModel, names: Iterable[str]) -> dict[str, TapShape]:
    """Return the channels and the stride of taps, as one forward of a small image finds them; the
    model stays as it is.

    Raises ConfigError for an unknown tap.
    """
    parameter = next(model.parameters(), torch.zeros(0))
    image = parameter.new_zeros((1, 3, model.probe_pixels, model.probe_pixels))
    training = {module: module.training for module in model.modules()}
    recorder = TapRecorder(model, names)
    try:
        with torch.no_grad():
            model.eval()(image)
        return {
            name: TapShape(feature.shape[1], round(model.probe_pixels / feature.shape[2]))
            for name, feature in recorder.features.items()
        }
    finally:
        recorder.close()
        for module, mode in training.items():
            module.training = mode
