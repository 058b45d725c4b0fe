"""`attnfd-ray teacher import`: the output for a file that fits, and the errors of others."""

import json
import os
import sys

import pytest
import torch

from attnfd_ray import cli
from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.models import build_model, load_weights, read_header, save_model
from attnfd_ray.models.gate_probe import gate_shapes

TINY = ModelSettings(backbone="resnet18", width=0.125)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["attnfd-ray", "teacher", *arguments])
        with pytest.raises(SystemExit) as raised:
            cli.main()
        printed = capsys.readouterr()
        return raised.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def refused(run, tmp_path):
    """Return the error line of an import of in.pth; check that nothing was written."""

    def refused(*options, file="in.pth"):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = run("import", file, "-o", "out.safetensors", *options)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert sorted(tmp_path.rglob("*")) == before
        return err.rstrip("\n")

    return refused


@pytest.fixture
def tiny(tmp_path):
    torch.manual_seed(0)
    state = build_model(TINY, num_classes=4).state_dict()
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "in.pth")
    return state


# ---- a file that fits


def test_without_json_it_prints_what_was_taken_and_what_was_assumed(run, tiny):
    code, out, err = run("import", "in.pth", "-o", "out.safetensors")
    assert (code, err) == (0, "")
    network = "deeplabv3plus with resnet18 at width 0.125, output stride 16"
    assert out.splitlines() == [
        f"in.pth: {network} (assumed: --output-stride)",
        "classes:  4 (class0, class1, class2, ...)",
        f"taken:    {len(tiny)} tensors",
        "left out: beside the weights: 1 (epoch)",
        "written:  out.safetensors",
    ]


def test_each_gate_has_a_line_with_its_verdict_and_the_numbers_behind_it(run, tiny):
    torch.manual_seed(0)
    for location, channels in {"backbone": 64, "aspp": 32, "decoder": 32}.items():
        # 64 hidden channels: enough weights for the largest to be within 1 % of the bound
        for name, shape in gate_shapes(
            {"ChannelGate.mlp.1.weight": torch.zeros(64, channels)}, channels
        ).items():
            tiny[f"{location}.cbam.{name}"] = torch.randn(shape)
    for index, inputs in ((1, 32), (3, 64)):  # as initialised: uniform in +-1/sqrt(inputs)
        tiny[f"aspp.cbam.ChannelGate.mlp.{index}.weight"].uniform_(-(inputs**-0.5), inputs**-0.5)
    tiny["aspp.cbam.SpatialGate.spatial.conv.weight"] *= (2 / 98) ** 0.5
    tiny["aspp.cbam.SpatialGate.spatial.bn.weight"].fill_(1)
    tiny["aspp.cbam.SpatialGate.spatial.bn.bias"].fill_(0)
    tiny["aspp.cbam.SpatialGate.spatial.bn.num_batches_tracked"] = torch.tensor(5)
    torch.save(tiny, "in.pth")
    lines = run("import", "in.pth", "-o", "out.safetensors")[1].splitlines()
    gates = [line for line in lines if line.startswith("gate:")]
    assert [line.split(":")[1].strip() for line in gates] == [
        *(
            "backbone kept, looks trained",
            "aspp kept, looks untrained",
            "decoder kept, looks trained",
        ),
    ]
    ratios = gates[1].partition("max|w| ")[2].partition(" of the initial bound")[0].split(" and ")
    assert all(0.99 < float(ratio) <= 1 for ratio in ratios)
    assert gates[1].endswith("BatchNorm weight 1, bias 0, batches seen 5")


def test_class_names_are_read_from_a_file_one_per_line(run, tiny, tmp_path):
    (tmp_path / "names.txt").write_text("sky\nroad \ntr\u00e9e\ncar\n", encoding="utf-8")
    assert run("import", "in.pth", "-o", "out.safetensors", "--class-names", "names.txt")[0] == 0
    assert read_header(tmp_path / "out.safetensors").class_names == (
        "sky",
        "road",
        "tr\u00e9e",
        "car",
    )


def test_a_best_file_of_our_own_comes_back_with_its_names(run, tmp_path):
    model = build_model(TINY, num_classes=2)
    save_model(
        model,
        tmp_path / "best.safetensors",
        settings=TINY,
        num_classes=2,
        class_names=("a", "b"),
        extra={},
    )
    code, out, _ = run("import", "best.safetensors", "-o", "out.safetensors")
    assert code == 0
    assert out.startswith(
        "best.safetensors: deeplabv3plus with resnet18 at width 0.125, output stride 16\nclasses: "
        " 2 (a, b)"
    )
    other = build_model(TINY, num_classes=2)
    load_weights(other, tmp_path / "out.safetensors", num_classes=2)
    assert all(
        torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items()
    )


# ---- a file that does not


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
def test_a_pickle_that_would_run_code_is_refused_and_its_code_did_not_run(
    refused, tiny, tmp_path, as_zip
):
    content = {"state_dict": tiny, "best_pred": Trap(tmp_path / "sprung")}
    torch.save(content, "in.pth", _use_new_zipfile_serialization=as_zip)
    assert refused() == (
        "in.pth: asks for 'posix.mkdir', which could run code, so it was not loaded; save its "
        "state_dict() alone"
    )
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(refused, tiny, tmp_path, share):
    content = (tmp_path / "in.pth").read_bytes()
    (tmp_path / "in.pth").write_bytes(content[: int(share * len(content))])
    assert refused() == (
        "in.pth: cannot be read as weights: cut short, or not a file that torch or safetensors "
        "wrote"
    )


def test_a_file_that_is_not_a_checkpoint_is_refused(refused, tmp_path):
    (tmp_path / "in.pth").write_text("<html>Sign in to download</html>")
    assert refused().startswith("in.pth: cannot be read as weights: ")
    torch.save({"epoch": 3}, "in.pth")
    assert (
        refused()
        == "in.pth: holds no tensors by name, neither bare nor under 'state_dict' or 'model'"
    )
    torch.save(torch.nn.Linear(2, 2).state_dict(), "in.pth")
    assert refused().startswith(
        "in.pth: holds no segmentation network: none of its 2 names (weight, bias) starts with"
    )
    assert refused(file="nowhere.pth") == "nowhere.pth: cannot be read (No such file or directory)"
    assert refused(file=".") == ".: cannot be read (Is a directory)"


def test_a_wrong_file_is_refused_with_the_first_keys_and_as_json_with_all(
    run, refused, tiny, tmp_path
):
    lost = [
        name
        for name in tiny
        if name.startswith("aspp.aspp") and not name.endswith("num_batches_tracked")
    ]
    state = {name: tensor for name, tensor in tiny.items() if name not in lost} | {
        "fc.bias": torch.zeros(3)
    }
    torch.save(state, "in.pth")
    line = refused()
    assert line.startswith("in.pth: read as deeplabv3plus with resnet18: ")
    assert (
        f"{len(lost)} missing (aspp.aspp1.atrous_conv.weight, aspp.aspp1.bn.weight, "
        "aspp.aspp1.bn.bias, ...)" in line
    )
    code, out, err = run("import", "in.pth", "-o", "out.safetensors", "--json")
    document = json.loads(out)
    assert (code, err) == (2, f"{line}\n")
    assert document["error"] == line
    assert document["missing"] == lost
    assert document["unexpected"][-1:] == ["fc.bias"]
    assert not (tmp_path / "out.safetensors").exists()


def test_names_that_do_not_fit_are_refused(refused, tiny, tmp_path):
    (tmp_path / "names.txt").write_text("sky\n\nroad\n")
    assert (
        refused("--class-names", "names.txt")
        == "names.txt:2: is empty; needed is the name of one class per line"
    )
    (tmp_path / "names.txt").write_text("")
    assert (
        refused("--class-names", "names.txt")
        == "names.txt:1: is empty; needed is the name of one class per line"
    )
    (tmp_path / "names.txt").write_bytes(b"\xff\n")
    assert refused("--class-names", "names.txt").startswith("names.txt: is not text in UTF-8")
    assert (
        refused("--class-names", "nowhere") == "nowhere: cannot be read (No such file or directory)"
    )
    assert refused("--dataset", "voc") == "in.pth: predicts 4 classes, but 21 class names are given"
    assert refused("--dataset", "vok").startswith("unknown dataset 'vok'; did you mean 'voc'?")
    assert (
        refused("--dataset", "os:path")
        == "dataset 'os:path' has no class_names; give --class-names"
    )


def test_an_existing_file_is_not_overwritten(run, tiny, tmp_path):
    before = (tmp_path / "in.pth").read_bytes()
    code, out, err = run("import", "in.pth", "-o", "in.pth")
    assert (code, out, err) == (2, "", "in.pth: there already; move it away or give another name\n")
    assert (tmp_path / "in.pth").read_bytes() == before


def test_two_sources_of_class_names_are_refused(run):
    code, _, err = run("import", "in.pth", "-o", "out", "--classes", "3", "--dataset", "voc")
    assert code == 2
    assert "--classes, --class-names and --dataset exclude each other: give one of them" in err


@pytest.mark.parametrize("command", [["teacher"], ["teacher", "import"]])
def test_help_has_the_usage(run, command):
    code, out, err = run(*command[1:], "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: attnfd-ray {' '.join(command)} ")
