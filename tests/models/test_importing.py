"""Networks from elsewhere: how they are recognised, what is kept, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from attnfd_ray.cli import cli
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.data.datasets.voc import VOC
from attnfd_ray.distill.cbam import CBAM, Form
from attnfd_ray.distill.gates import teacher_gate
from attnfd_ray.errors import CheckpointError, ConfigError, StoreError
from attnfd_ray.models import (
    SegmentationModel,
    build_model,
    cbam_state,
    load_weights,
    read_header,
    save_model,
)
from attnfd_ray.models.files import HEADER_KEY
from attnfd_ray.models.importing import Imported, import_network
from attnfd_ray.models.tensors import Misfit

from .released import NETWORKS, REFERENCE, golden_images, released_state

TINY = ModelSettings(backbone="resnet18", width=0.125)
NAMES = ("sky", "road", "tree", "car")
BACKBONES = ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2"]
CHANNELS = {"backbone": 64, "aspp": 32, "decoder": 32}  # of TINY


def make(
    settings: ModelSettings = TINY, *, num_classes: int = 4, seed: int = 0
) -> SegmentationModel:
    torch.manual_seed(seed)
    model = build_model(settings, num_classes=num_classes)
    for name, tensor in model.named_buffers():
        if name.endswith("running_mean"):
            tensor.normal_()
    return model


def released_gate(channels: int) -> dict[str, Tensor]:
    """Return the tensors of a gate under the released names."""
    ours = CBAM(channels, Form(reduction_ratio=16)).state_dict()
    names = {
        "channel.mlp.0": "ChannelGate.mlp.1",
        "channel.mlp.2": "ChannelGate.mlp.3",
        "spatial.": "SpatialGate.spatial.",
    }
    return {
        name.replace(old, new): tensor
        for name, tensor in ours.items()
        for old, new in names.items()
        if old in name
    }


def tiny_state() -> dict[str, Tensor]:
    """Return a small network's tensors with three gates, named as in the authors' files."""
    gates = {
        f"{place}.cbam.{name}": tensor
        for place, channels in CHANNELS.items()
        for name, tensor in released_gate(channels).items()
    }
    assert len(gates) == 30
    return {**make().state_dict(), **gates}


def without(state: dict[str, Tensor], *parts: str) -> dict[str, Tensor]:
    return {
        name: tensor for name, tensor in state.items() if not any(part in name for part in parts)
    }


def built(path: Path) -> SegmentationModel:
    """Return the network that one of our files describes, from the file alone."""
    header = read_header(path)
    assert header is not None
    model = build_model(header.settings, num_classes=header.num_classes)
    load_weights(model, path, num_classes=header.num_classes)
    return model


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., Imported]:
    """Import a torch file with these contents to out.safetensors."""

    def import_state(content: object, **options: object) -> Imported:
        torch.save(content, tmp_path / "in.pth")
        return import_network(tmp_path / "in.pth", tmp_path / "out.safetensors", **options)  # type: ignore[arg-type]

    return import_state


@pytest.fixture
def refusal(take: Callable[..., Imported], tmp_path: Path) -> Callable[..., Misfit]:
    """Return the Misfit of an import; check that it is one line and that nothing was written."""

    def refused(content: object, **options: object) -> Misfit:
        with pytest.raises(Misfit) as caught:
            take(content, **options)
        assert "\n" not in str(caught.value)
        assert [file.name for file in tmp_path.iterdir()] == ["in.pth"]
        return caught.value

    return refused


# ---- the authors' files


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_an_imported_file_of_the_authors_gives_the_logits_of_their_code(
    network: str, tmp_path: Path
) -> None:
    golden = np.load(REFERENCE / "deeplabv3plus_logits.npz")
    path, out, state = (
        tmp_path / "teacher.pth.tar",
        tmp_path / "teacher.safetensors",
        released_state(network),
    )
    torch.save({"epoch": 1, "best_pred": np.float64(0.77), "state_dict": state}, path)
    ran = CliRunner().invoke(
        cli, ["teacher", "import", str(path), "-o", str(out), "--dataset", "voc", "--json"]
    )
    path.unlink()  # 240 MB; pytest would keep it
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.output)
    header = read_header(out)
    assert header is not None
    assert (
        header.settings
        == ModelSettings(backbone=NETWORKS[network])
        == ModelSettings(**report["model"])
    )
    assert header.class_names == VOC.class_names == tuple(report["class_names"])
    duplicates = sum("_level_features." in name for name in state)
    assert report["num_tensors"] == len(state) - 30 - duplicates
    assert len(report["left_out"].get("duplicates of the backbone's halves", [])) == duplicates
    assert report["left_out"]["beside the weights"] == ["epoch", "best_pred"]
    assert [gate["location"] for gate in report["gates"]] == ["backbone", "aspp", "decoder"]

    model = built(out).eval()
    out.unlink()
    for height, width in ((65, 65), (49, 81)):
        expected = torch.from_numpy(golden[f"{network}_{height}x{width}_logits"])
        with torch.no_grad():
            logits = model(golden_images(height, width))
        # float32 over a hundred layers: other kernels and thread counts add in another order
        assert (logits - expected).abs().max() < 1e-4 * expected.std()


# ---- what is recognised, and what is kept


@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbone_width_and_classes_are_recognised_by_the_tensors(
    backbone: str, take: Callable[..., Imported], tmp_path: Path
) -> None:
    settings = ModelSettings(backbone=backbone, width=0.125)
    model = make(settings, num_classes=7)
    imported = take(model.state_dict())
    assert imported.settings == settings
    assert imported.class_names == tuple(f"class{index}" for index in range(7))
    assert imported.num_tensors == len(model.state_dict())
    assert (imported.left_out, imported.gates, imported.num_counters_added) == ({}, (), 0)
    assert same(built(tmp_path / "out.safetensors").state_dict(), model.state_dict())


SHAPES: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "authors": lambda state: {
        "state_dict": state,
        "epoch": 3,
        "best_pred": 0.77,
        "optimizer": {"state": {}},
    },
    "data parallel": lambda state: {
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}
    },
    "no counters": lambda state: without(state, "num_batches_tracked"),
    "no gates": lambda state: without(state, ".cbam."),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_files_of_every_origin_give_the_same_network(
    shape: str, take: Callable[..., Imported], tmp_path: Path
) -> None:
    state = tiny_state()
    imported = take(SHAPES[shape](state))
    network = without(state, ".cbam.")
    assert same(built(tmp_path / "out.safetensors").state_dict(), network)
    lacks_counters = shape == "no counters"
    counters = sum(name.endswith("num_batches_tracked") for name in network)
    assert imported.num_counters_added == (counters if lacks_counters else 0)
    assert imported.num_tensors == len(network) - (counters if lacks_counters else 0)
    beside = (
        {"beside the weights": ("epoch", "best_pred", "optimizer")} if shape == "authors" else {}
    )
    assert imported.left_out == beside
    assert [gate.location for gate in imported.gates] == (
        [] if shape == "no gates" else ["backbone", "aspp", "decoder"]
    )


def test_the_output_stride_is_as_given_else_16(
    take: Callable[..., Imported], tmp_path: Path
) -> None:
    imported = take(make().state_dict())
    assert (imported.settings.output_stride, imported.stride_from) == (16, "assumed")
    (tmp_path / "out.safetensors").unlink()
    imported = take(make().state_dict(), output_stride=8)
    assert (imported.settings.output_stride, imported.stride_from) == (8, "given")
    assert built(tmp_path / "out.safetensors").state_dict().keys() == make().state_dict().keys()


def test_the_written_file_says_what_it_is_and_where_it_came_from(
    take: Callable[..., Imported], tmp_path: Path
) -> None:
    take(make().state_dict(), class_names=NAMES)
    header = read_header(tmp_path / "out.safetensors")
    assert header is not None
    assert (header.settings, header.num_classes, header.class_names) == (TINY, 4, NAMES)
    assert list(header.extra) == ["imported_from_sha256"]


@pytest.mark.parametrize("counted", [True, False], ids=["counters", "no counters"])
@pytest.mark.parametrize("layer", ["stage4", "aspp", "decoder"])
def test_the_gates_answer_from_the_imported_file_as_from_the_original(
    layer: str, counted: bool, take: Callable[..., Imported], tmp_path: Path
) -> None:
    state = tiny_state()
    take(state if counted else without(state, "num_batches_tracked"))
    channels = {"stage4": 64, "aspp": 32, "decoder": 32}[layer]
    original, kept = (
        teacher_gate(
            "from_checkpoint",
            channels,
            Form(),
            layer=layer,
            seed=0,
            teacher_file=tmp_path / name,
            batch_statistics=False,
        )
        for name in ("in.pth", "out.safetensors")
    )
    features = torch.rand(2, channels, 5, 6)
    assert torch.equal(original(features), kept(features))


def test_a_file_of_our_own_comes_back_as_it_was(tmp_path: Path) -> None:
    path, out = tmp_path / "best.safetensors", tmp_path / "teacher.safetensors"
    settings = TINY.model_copy(
        update={"output_stride": 8, "pretrained": "imagenet"}
    )  # and nothing is fetched for it
    save_model(
        make(), path, settings=settings, num_classes=4, class_names=NAMES, extra={"epoch": "7"}
    )
    imported = import_network(path, out)
    assert (imported.settings, imported.class_names, imported.stride_from) == (
        settings,
        NAMES,
        "header",
    )
    header = read_header(out)
    assert header is not None
    assert (header.settings, header.num_classes, header.class_names) == (settings, 4, NAMES)
    assert header.extra["epoch"] == "7"
    assert same(safetensors.torch.load_file(out), safetensors.torch.load_file(path))


def test_importing_an_imported_file_again_changes_nothing(
    take: Callable[..., Imported], tmp_path: Path
) -> None:
    take(tiny_state(), class_names=NAMES)
    import_network(tmp_path / "out.safetensors", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        tmp_path / "out.safetensors"
    ).read_bytes()
    assert list(cbam_state(tmp_path / "again.safetensors")) == ["backbone", "aspp", "decoder"]


def test_torchvisions_deeplabv3_becomes_the_arch_of_that_name(
    take: Callable[..., Imported], tmp_path: Path
) -> None:
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3, aux_loss=True
    )
    imported = take(network.state_dict())
    assert (imported.settings.arch, imported.settings.backbone) == (
        "torchvision/deeplabv3_mobilenet_v3_large",
        "mobilenet_v3_large",
    )
    auxiliary = tuple(name for name in network.state_dict() if name.startswith("aux_classifier."))
    assert imported.left_out == {"auxiliary classifier": auxiliary}
    model, images = built(tmp_path / "out.safetensors").eval(), torch.rand(1, 3, 65, 49)
    with torch.no_grad():
        assert torch.equal(model(images), network.eval()(images)["out"])


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "deeplabv3_resnet101"])
def test_torchvisions_resnets_are_distinguished(name: str, refusal: Callable[..., Misfit]) -> None:
    import torchvision

    with torch.device("meta"):
        network = torchvision.models.get_model(
            f"{name}", weights=None, weights_backbone=None, aux_loss=False
        )
    # shapes do not matter here; without memory for them the test is fast
    error = refusal({key: torch.zeros(1) for key in network.state_dict()})
    assert f"read as torchvision/{name} with {name.removeprefix('deeplabv3_')}: " in str(error)
    assert (error.missing, error.unexpected) == ((), ())


# ---- what is refused


def test_every_tensor_that_does_not_fit_is_listed(
    refusal: Callable[..., Misfit], tmp_path: Path
) -> None:
    state = without(tiny_state(), "layer1.0", "aspp.cbam.ChannelGate.mlp.1.bias")
    state["decoder.cbam.SpatialGate.spatial.conv.weight"] = torch.zeros(1, 2, 3, 3)
    state["backbone.layer1.1.cbam.weight"] = state["fc.weight"] = torch.zeros(3)
    error = refusal(state)
    lost = [
        name for name in make().state_dict() if "layer1.0" in name and "num_batches" not in name
    ]
    assert error.missing == (*lost, "aspp.cbam.ChannelGate.mlp.1.bias")
    assert error.unexpected == ("backbone.layer1.1.cbam.weight", "fc.weight")
    assert error.reshaped == (
        "decoder.cbam.SpatialGate.spatial.conv.weight [1, 2, 3, 3] here, [1, 2, 7, 7] needed",
    )
    assert str(error) == (
        f"{tmp_path / 'in.pth'}: read as deeplabv3plus with resnet18 at width 0.125: 11 missing "
        "(backbone.layer1.0.conv1.weight, backbone.layer1.0.bn1.weight, "
        "backbone.layer1.0.bn1.bias, ...), 2 unexpected (backbone.layer1.1.cbam.weight, "
        "fc.weight), 1 of another shape (decoder.cbam.SpatialGate.spatial.conv.weight "
        "[1, 2, 3, 3] here, [1, 2, 7, 7] needed)"
    )


def test_a_gate_for_other_channels_is_refused(refusal: Callable[..., Misfit]) -> None:
    wide = {f"aspp.cbam.{name}": tensor for name, tensor in released_gate(64).items()}
    error = refusal(without(tiny_state(), "aspp.cbam.") | wide)
    assert len(error.reshaped) == 3
    assert error.reshaped[0] == "aspp.cbam.ChannelGate.mlp.1.weight [4, 64] here, [4, 32] needed"


def test_a_file_without_its_classifier_lacks_it(refusal: Callable[..., Misfit]) -> None:
    error = refusal(without(make().state_dict(), "last_conv.8"))
    assert error.missing == ("decoder.last_conv.8.weight", "decoder.last_conv.8.bias")


def test_what_is_given_must_be_true(
    refusal: Callable[..., Misfit], take: Callable[..., Imported]
) -> None:
    assert "read as deeplabv3plus with resnet34" in str(
        refusal(make().state_dict(), backbone="resnet34")
    )
    assert str(refusal(make().state_dict(), num_classes=5)).endswith(
        "; it was made for 4 classes, not 5"
    )
    with pytest.raises(CheckpointError, match=r"predicts 4 classes, but 3 class names are given$"):
        take(make().state_dict(), class_names=NAMES[:3])
    with pytest.raises(
        ConfigError, match=r"unknown backbone 'resnet19'; did you mean 'resnet18'\?"
    ):
        take(make().state_dict(), backbone="resnet19")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1j])
def test_values_that_are_no_finite_numbers_are_refused(
    value: complex, take: Callable[..., Imported]
) -> None:
    state = make().state_dict()
    state["aspp.bn1.weight"] = torch.full((32,), value)
    with pytest.raises(
        CheckpointError,
        match=r"1 tensors hold values that are no finite numbers \(aspp.bn1.weight\)$",
    ):
        take(state)


def test_the_error_for_a_file_without_such_a_network_says_what_is_needed(
    take: Callable[..., Imported],
) -> None:
    with pytest.raises(CheckpointError) as caught:
        take(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).state_dict())
    assert (
        "none of its 4 names (0.weight, 0.bias, 1.weight, ...) starts with 'backbone.'; needed is"
        in str(caught.value)
    )


def test_a_name_with_and_without_its_prefix_is_ambiguous(take: Callable[..., Imported]) -> None:
    state = make().state_dict()
    with pytest.raises(
        CheckpointError, match=r"the same tensors with and without 'module\.' before their names"
    ):
        take({**state, "module.aspp.bn1.weight": state["aspp.bn1.weight"]})


def test_a_file_that_is_there_is_never_written_over(
    take: Callable[..., Imported], tmp_path: Path
) -> None:
    (tmp_path / "out.safetensors").write_text("mine")
    with pytest.raises(
        StoreError, match=r"out\.safetensors: there already; move it away or give another name$"
    ):
        take(make().state_dict())
    assert (tmp_path / "out.safetensors").read_text() == "mine"


@pytest.mark.parametrize("setting", ["arch", "backbone"])
def test_a_module_that_a_header_names_is_not_imported(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    header = {"settings": {setting: "trap:Net"}, "num_classes": 4, "class_names": NAMES}
    path = tmp_path / "in.safetensors"
    safetensors.torch.save_file(
        make().state_dict(), path, metadata={HEADER_KEY: json.dumps(header)}
    )
    with pytest.raises(
        CheckpointError,
        match=r"its header names a user's own code \(trap:Net\), which is not run",
    ):
        import_network(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "sprung").exists()
    assert "trap" not in sys.modules


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"settings": 3}', '{"version": 2}'])
def test_a_header_that_is_none_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "in.safetensors"
    safetensors.torch.save_file(make().state_dict(), path, metadata={HEADER_KEY: text})
    with pytest.raises(
        CheckpointError, match=r"its header cannot be read, is it of a newer version\? \(.*\)$"
    ):
        import_network(path, tmp_path / "out.safetensors")
