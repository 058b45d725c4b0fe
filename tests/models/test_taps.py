from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import ConfigError
from attnfd_ray.models import SegmentationModel, TapRecorder, build_model

NETWORKS = ("resnet18", "resnet50", "mobilenet_v2")


def make(backbone: str = "resnet18") -> SegmentationModel:
    torch.manual_seed(0)
    return build_model(ModelSettings(backbone=backbone, width=0.125), num_classes=4)


def images(seed: int = 0) -> Tensor:
    return torch.rand((2, 3, 33, 49), generator=torch.Generator().manual_seed(seed))


def test_features_are_what_the_forward_went_on_with() -> None:
    model = make().eval()
    recorder = TapRecorder(model, ["stage1", "stage4", "aspp", "decoder", "logits"])
    with torch.no_grad():
        output = model(images())
        features = recorder.features
        recorder.close()
        assert torch.equal(model.aspp(F.relu(features["stage4"])), features["aspp"])  # type: ignore[operator]
        logits = model.decoder(features["aspp"], F.relu(features["stage1"]))  # type: ignore[operator]
        assert torch.equal(logits, features["logits"])
        classifier = model.get_submodule("decoder.last_conv.8")
        assert torch.equal(classifier(features["decoder"]), logits)
        upsampled = F.interpolate(logits, size=(33, 49), mode="bilinear", align_corners=True)
    assert torch.equal(upsampled, output)


def test_stages_are_tapped_before_and_heads_after_their_relu() -> None:
    model = make()
    recorder = TapRecorder(model, model.taps)
    model(images())
    for name in ("stage1", "stage2", "stage3", "stage4"):
        assert recorder.features[name].min() < 0
    for name in ("aspp", "decoder"):
        assert recorder.features[name].min() == 0


def test_the_aspp_feature_has_no_dropout_in_it() -> None:
    model = make()
    recorder = TapRecorder(model, ["aspp"])
    model(images())
    first = recorder.features["aspp"]
    model(images())
    assert torch.equal(
        recorder.features["aspp"], first
    )  # same batch statistics, another dropout mask


@pytest.mark.parametrize("backbone", NETWORKS)
def test_nothing_overwrites_a_feature_after_it_was_read(backbone: str) -> None:
    model = make(backbone)
    recorder = TapRecorder(model, model.taps)
    copies: dict[str, Tensor] = {}
    for name, path in model.taps.items():

        def copy(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
            copies[name] = output.detach().clone()

        model.get_submodule(path).register_forward_hook(copy)
    logits: Tensor = model(images())
    logits.sum().backward()  # type: ignore[no-untyped-call]
    assert copies.keys() == recorder.features.keys()
    assert all(torch.equal(copies[name], feature) for name, feature in recorder.features.items())


def test_only_what_was_asked_for_is_kept() -> None:
    model = make()
    recorder = TapRecorder(model, ["stage4", "decoder"])
    model(images())
    assert list(recorder.features) == ["stage4", "decoder"]


def test_recording_does_not_change_the_output() -> None:
    model = make().eval()
    with torch.no_grad():
        before = model(images())
        TapRecorder(model, model.taps)
        assert torch.equal(model(images()), before)


def test_every_forward_starts_afresh_and_earlier_features_stay_whole() -> None:
    model = make().eval()
    recorder = TapRecorder(model, ["stage2"])
    with torch.no_grad():
        model(images(1))
        first = recorder.features
        kept = first["stage2"].clone()
        model(images(2))
    assert recorder.features is not first
    assert torch.equal(first["stage2"], kept)
    assert not torch.equal(recorder.features["stage2"], kept)


def test_a_forward_that_fails_leaves_no_feature_of_the_one_before() -> None:
    model = make().eval()
    recorder = TapRecorder(model, ["stage4"])
    model(images())
    with pytest.raises(RuntimeError):
        model(torch.rand(1, 5, 33, 33))
    assert recorder.features == {}


def test_gradients_flow_through_a_feature() -> None:
    model = make()
    recorder = TapRecorder(model, ["stage4"])
    model(images())
    recorder.features["stage4"].square().mean().backward()  # type: ignore[no-untyped-call]
    assert model.get_parameter("backbone.conv1.weight").grad is not None
    assert model.get_parameter("aspp.conv1.weight").grad is None


def test_clear_drops_the_features_and_close_removes_the_hooks() -> None:
    model = make().eval()
    recorder = TapRecorder(model, ["stage4"])
    model(images())
    recorder.clear()
    assert recorder.features == {}
    recorder.close()
    model(images())
    assert recorder.features == {}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_two_recorders_do_not_disturb_each_other() -> None:
    model = make().eval()
    first, second = TapRecorder(model, ["stage4"]), TapRecorder(model, ["aspp"])
    first.close()
    model(images())
    assert first.features == {}
    assert list(second.features) == ["aspp"]


def test_features_are_recorded_inside_distributed_data_parallel(tmp_path: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        task = nn.ModuleDict({"student": make()})
        task.forward = lambda batch: task["student"](batch)
        recorder = TapRecorder(task["student"], ["stage4", "aspp"])  # type: ignore[arg-type]
        wrapped = DistributedDataParallel(task)
        for seed in (1, 2):
            output = wrapped(images(seed))
            (output.mean() + recorder.features["stage4"].square().mean()).backward()
    finally:
        distributed.destroy_process_group()
    assert recorder.features["stage4"].requires_grad
    assert list(recorder.features) == ["stage4", "aspp"]


@pytest.mark.parametrize(
    ("word", "way_out"),
    [
        ("stage5", "did you mean 'stage4'?"),
        (
            "neck",
            (
                "there is: aspp, aspp_pre, decoder, decoder_pre, logits, stage1, stage2, stage3, "
                "stage4"
            ),
        ),
    ],
)
def test_an_unknown_tap_is_refused_with_the_way_out(word: str, way_out: str) -> None:
    model = make()
    with pytest.raises(ConfigError) as caught:
        TapRecorder(model, ["stage4", word])
    assert str(caught.value) == f"unknown tap '{word}'; {way_out}"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
