"""Features of a running network, read by the name of a tap from its one forward.

A tap is a name that the network defines (`stage4`), or the path of any module in it
(`encoder.layer2`). Its feature is the module's output. Where the output is several tensors,
brackets select one (`encoder[3]`, `backbone[out]`).
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

Picks = tuple[str, ...]  # the keys or indices that select one tensor of an output

_PATH = re.compile(r"(?P<module>\w+(\.\w+)*)(?P<picks>(\[\w+\])*)")


class TapShape(NamedTuple):
    """Channels of a feature, and its stride: image height / feature height."""

    channels: int
    stride: int


class TapRecorder:
    """Records the features at the named taps of `model`.

    After each forward `features` maps every name to features_NCHW of that forward. A feature is the
    tensor that the forward itself used, with its gradient. `clear` drops the features, `close`
    removes the hooks.

    The hooks are on the model itself, so a wrapper around it (DistributedDataParallel, a task)
    makes no difference. Raises ConfigError for an unknown name; and, in a forward, for a module
    whose output is not one feature map.

    >>> from attnfd_ray.config.schema import ModelSettings
    >>> from attnfd_ray.models import TapRecorder, build_model
    >>> model = build_model(ModelSettings(backbone="resnet18", width=0.125), num_classes=4)
    >>> recorder = TapRecorder(model, ["stage4", "backbone.layer1"])
    >>> logits_NCHW = model(torch.zeros(2, 3, 64, 64))
    >>> {name: tuple(feature.shape) for name, feature in recorder.features.items()}
    {'backbone.layer1': (2, 8, 16, 16), 'stage4': (2, 64, 4, 4)}
    >>> recorder.close()
    """

    def __init__(self, model: SegmentationModel, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.features: dict[str, Tensor] = {}
        located = {name: locate(model, name) for name in self.names}
        self._handles = [model.register_forward_pre_hook(self._start)]
        for name, (module, picks) in located.items():
            self._handles.append(module.register_forward_hook(partial(self._record, name, picks)))

    def _start(self, _module: nn.Module, _inputs: Any) -> None:
        self.clear()

    def _record(
        self, name: str, picks: Picks, _module: nn.Module, _inputs: Any, output: Any
    ) -> None:
        self.features[name] = _picked(name, picks, output)

    def clear(self) -> None:
        """Drop the features; a dict taken before stays as it is."""
        self.features = {}

    def close(self) -> None:
        """Remove the hooks and drop the features."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()


def locate(model: SegmentationModel, name: str) -> tuple[nn.Module, Picks]:
    """Return the module of a tap, and the keys or indices that select a tensor of its output.

    Raises ConfigError for an unknown tap.
    """
    match = _PATH.fullmatch(model.taps.get(name, name))
    if match is None:
        raise _unknown_tap(model, name)
    try:
        module = model.get_submodule(match["module"])
    except AttributeError:
        raise _unknown_tap(model, name) from None
    return module, tuple(re.findall(r"\w+", match["picks"]))


def _unknown_tap(model: SegmentationModel, name: str) -> ConfigError:
    known = list(model.taps)
    if "." in name:
        known += [path for path, _ in model.named_modules() if path]
    return ConfigError(f"unknown tap '{name}'{registry.suggestion(name, known)}")


def _picked(name: str, picks: Picks, output: Any) -> Tensor:
    for pick in picks:
        key: str | int = pick
        try:
            if not isinstance(output, Mapping):
                key = int(pick)
            output = output[key]
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
    """Return what a module returned, as far as it matters for naming a tap."""
    if isinstance(output, Tensor):
        return f"a tensor {list(output.shape)}"
    if isinstance(output, Mapping):
        return f"a dict; name one of {', '.join(f'[{key}]' for key in output)}"
    if isinstance(output, list | tuple):
        return f"{len(output)} of them; name one, [0] to [{len(output) - 1}]"
    return f"a {type(output).__name__}"


def tap_shapes(model: SegmentationModel, names: Iterable[str]) -> dict[str, TapShape]:
    """Return the channels and the stride of taps, measured by one forward of a small image.

    The model is left as it was. Raises ConfigError for an unknown tap.
    """
    parameter = next(model.parameters(), torch.zeros(0))
    image = parameter.new_zeros((1, 3, model.probe_pixels, model.probe_pixels))
    modes = {module: module.training for module in model.modules()}
    recorder = TapRecorder(model, names)
    try:
        with torch.no_grad():
            model.eval()(image)
        features = recorder.features
    finally:
        recorder.close()
        for module, mode in modes.items():
            module.training = mode
    return {name: _shape(feature, model.probe_pixels) for name, feature in features.items()}


def _shape(feature_NCHW: Tensor, image_pixels: int) -> TapShape:
    _, channels, height, _ = feature_NCHW.shape
    return TapShape(channels, stride=round(image_pixels / height))
