"""The contracts of segmentation networks and of backbones, as tests that run on any of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attnfd_ray import registry
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.models import (
    Backbone,
    SegmentationModel,
    TapRecorder,
    build_model,
    load_weights,
    read_header,
    save_model,
    tap_shapes,
)

NUM_CLASSES = 4


class NetworkContract:
    """Checks that a network keeps the contract of `attnfd_ray.models.SegmentationModel`.

    Derive a test class and set its attributes:

    - `network`: its settings, as under `student:` in an experiment.
    - `image_sizes`: height and width, in pixels, of images that it can take.

        class TestMyNetwork(NetworkContract):
            network = {"arch": "mypackage.networks:MyNetwork"}
    """

    network: Mapping[str, Any]
    image_sizes: ClassVar[Sequence[tuple[int, int]]] = ((64, 64), (45, 70))

    @property
    def settings(self) -> ModelSettings:
        """The validated settings of the network."""
        return ModelSettings.model_validate(self.network)

    def build(self, seed: int = 0) -> SegmentationModel:
        """Return a new network with first weights from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(self.settings, num_classes=NUM_CLASSES)

    @property
    def built(self) -> SegmentationModel:
        """One network in eval mode for all tests that leave it as it is."""
        return _built(self.settings.model_dump_json())

    def test_its_settings_survive_a_round_trip(self) -> None:
        """A file with the network's weights holds its settings."""
        stored = self.settings.model_dump_json()
        again = ModelSettings.model_validate_json(stored)
        assert again == self.settings, "settings change when they are written and read"

    def test_logits_have_a_channel_a_class_and_the_size_of_the_images(self) -> None:
        """Scores are compared with labels at the size of the images."""
        for height, width in self.image_sizes:
            logits_NCHW = _run(self.built, _images(1, height, width))
            needed = (1, NUM_CLASSES, height, width)
            assert logits_NCHW.shape == needed, (
                f"logits have shape {list(logits_NCHW.shape)}; needed is {list(needed)}"
            )
            assert logits_NCHW.isfinite().all(), "logits are not finite"

    def test_every_tap_has_the_channels_that_it_announces(self) -> None:
        """Connectors and gates are made for these channels."""
        model = self.built
        shapes = tap_shapes(model, model.taps)
        found = {tap: shape.channels for tap, shape in shapes.items()}
        announced = model.tap_channels()
        assert announced == found, (
            f"tap_channels() returns {announced}, but features have {found} channels"
        )
        assert found["logits"] == NUM_CLASSES, (
            f"the tap 'logits' has {found['logits']} channels; needed is one a class"
        )
        names = getattr(model, "tap_names", model.taps)
        assert set(names) == set(model.taps), "tap_names and taps name different taps"

    def test_the_stride_of_a_tap_is_the_same_for_larger_images(self) -> None:
        """A stride belongs to the network, not to a size of images."""
        model = self.built
        pixels = 2 * model.probe_pixels
        recorder = TapRecorder(model, model.taps)
        _run(model, _images(1, pixels, pixels))
        found = {
            tap: (feature.shape[1], pixels // feature.shape[2])
            for tap, feature in recorder.features.items()
        }
        recorder.close()
        measured = tap_shapes(model, model.taps)
        assert found == measured, (
            f"channels and strides of images of {pixels} pixels are {found}, of "
            f"{model.probe_pixels} pixels {measured}; probe_pixels needs a multiple of all strides"
        )

    def test_nothing_overwrites_a_feature_after_it_was_read(self) -> None:
        """No layer after a tap works in place on its feature."""
        model = self.build()
        recorder = _CopyingRecorder(model, model.taps)
        model(_images(2, *self.image_sizes[0]))
        for tap, feature in recorder.features.items():
            assert torch.equal(feature, recorder.copies[tap]), f"the feature at {tap} was changed"

    def test_in_eval_mode_it_is_deterministic_and_keeps_its_state(self) -> None:
        """Scoring a network twice gives the same scores."""
        model = self.built
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        images_NCHW = _images(1, *self.image_sizes[0])
        first = _run(model, images_NCHW)
        second = _run(model, images_NCHW)
        assert torch.equal(first, second), "in eval mode the same images give different logits"
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), f"a forward in eval mode changes {name}"

    def test_every_parameter_that_learns_gets_a_gradient(self) -> None:
        """Several workers cannot average gradients that never come."""
        model = self.build()
        assert model.training, "a new network is in train mode"
        logits_NCHW = model(_images(2, *self.image_sizes[0]))
        logits_NCHW.sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, (
                    f"no logit depends on {name}; freeze it with requires_grad_(False)"
                )

    def test_the_backbone_is_a_part_of_its_parameters(self) -> None:
        """The backbone learns at the base rate, all other parameters at a multiple of it."""
        model = self.built
        backbone = {id(parameter) for parameter in model.backbone_parameters()}
        everything = {id(parameter) for parameter in model.parameters()}
        assert backbone, "backbone_parameters() yields nothing"
        assert backbone < everything, (
            "backbone_parameters() yields all parameters, or some that are not the model's"
        )

    def test_the_same_seed_gives_the_same_network(self) -> None:
        """First weights are drawn from torch's global generator only."""
        first = self.build(seed=3).state_dict()
        second = self.build(seed=3).state_dict()
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), f"{name} differs for the same seed"

    def test_a_saved_network_is_built_again_from_its_own_header(self) -> None:
        """A file of weights is all that is needed to use a student."""
        images_NCHW = _images(1, *self.image_sizes[0])
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "network.safetensors"
            save_model(
                self.built,
                path,
                settings=self.settings,
                num_classes=NUM_CLASSES,
                class_names=[f"class{index}" for index in range(NUM_CLASSES)],
                extra={},
            )
            header = read_header(path)
            assert header is not None
            assert header.settings == self.settings
            again = build_model(header.settings, num_classes=header.num_classes).eval()
            load_weights(again, path, num_classes=header.num_classes)
        assert torch.equal(_run(again, images_NCHW), _run(self.built, images_NCHW))


class BackboneContract:
    """Checks that a factory of backbones keeps the contract of `attnfd_ray.models.Backbone`.

    Derive a test class and set its attributes:

    - `backbone`: the name in settings, a registered one or `package.module:factory`.
    - `widths`: factors on channel counts that it can have.

        class TestMyBackbone(BackboneContract):
            backbone = "mypackage.networks:my_backbone"
    """

    backbone: str
    widths: ClassVar[Sequence[float]] = (0.25,)
    output_strides: ClassVar[Sequence[int]] = (8, 16)

    def build(self, *, width: float, output_stride: int) -> Backbone:
        """Return a new backbone in eval mode."""
        make = registry.load("backbone", self.backbone)
        backbone = make(width=width, output_stride=output_stride)
        assert isinstance(backbone, Backbone), (
            f"{type(backbone).__name__} must derive from attnfd_ray.models.Backbone"
        )
        return backbone.eval()

    def test_features_have_the_announced_strides_and_channels(self) -> None:
        """The low level has stride 4, the high level the output stride."""
        for width in self.widths:
            for stride in self.output_strides:
                backbone = self.build(width=width, output_stride=stride)
                low_level, high_level = _run(backbone, _images(1, 64, 96))
                assert low_level.shape == (1, backbone.low_channels, 16, 24)
                assert high_level.shape == (1, backbone.channels, 64 // stride, 96 // stride)

    def test_stages_are_modules_with_the_announced_channels(self) -> None:
        """A network takes its taps from the stages of its backbone."""
        for width in self.widths:
            backbone = self.build(width=width, output_stride=16)
            assert next(iter(backbone.stages)) == "stage1"
            for name, tap in backbone.stages.items():
                feature_NCHW = _output_of(backbone, tap.path)
                assert feature_NCHW.shape[1] == tap.channels, name


class _CopyingRecorder(TapRecorder):
    """Also keeps a copy of every feature, made when the feature is read."""

    def clear(self) -> None:
        super().clear()
        self.copies: dict[str, Tensor] = {}

    def _record(self, name: str, *arguments: Any) -> None:
        super()._record(name, *arguments)
        self.copies[name] = self.features[name].detach().clone()


@cache
def _built(settings_json: str) -> SegmentationModel:
    settings = ModelSettings.model_validate_json(settings_json)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(settings, num_classes=NUM_CLASSES).eval()


def _images(num_images: int, height: int, width: int) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.rand((num_images, 3, height, width), generator=rng)


def _run(network: nn.Module, images_NCHW: Tensor) -> Any:
    with torch.no_grad():
        return network(images_NCHW)


def _output_of(network: nn.Module, path: str) -> Tensor:
    """Return the output of a module in a forward of the network."""
    outputs: list[Tensor] = []
    handle = network.get_submodule(path).register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output)
    )
    _run(network, _images(1, 64, 64))
    handle.remove()
    return outputs[0]
