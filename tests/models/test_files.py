from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnfd_ray.config.schema import ModelSettings, TeacherSettings
from attnfd_ray.errors import CheckpointError, StoreError
from attnfd_ray.models import (
    SegmentationModel,
    build_model,
    cbam_state,
    load_student,
    load_weights,
    model_hash,
    read_header,
    save_model,
)

from .released import released_state

TINY = ModelSettings(backbone="resnet18", width=0.125)
NAMES = ["sky", "road", "tree", "car"]


def make(
    seed: int = 0, *, num_classes: int = 4, settings: ModelSettings = TINY
) -> SegmentationModel:
    torch.manual_seed(seed)
    return build_model(settings, num_classes=num_classes)


def save(model: nn.Module, path: Path, *, settings: ModelSettings = TINY) -> None:
    save_model(
        model, path, settings=settings, num_classes=4, class_names=NAMES, extra={"miou": "0.61"}
    )


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
    )


def refusal(path: Path, model: nn.Module | None = None, *, num_classes: int = 4) -> str:
    """Return the error of `load_weights`; check that it is one line and the model unchanged."""
    model = model or make(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, path, num_classes=num_classes)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_a_saved_network_is_built_again_from_the_file_alone_bit_by_bit(tmp_path: Path) -> None:
    model = make()
    model(torch.rand(2, 3, 33, 33))  # moves the BatchNorm statistics, counters included
    path = tmp_path / "new" / "student.safetensors"
    save(model, path)
    header = read_header(path)
    assert header is not None
    assert (header.settings, header.num_classes, header.class_names) == (TINY, 4, tuple(NAMES))
    assert header.extra == {"miou": "0.61"}
    reloaded = make(9, settings=header.settings, num_classes=header.num_classes)
    load_weights(reloaded, path, num_classes=header.num_classes)
    assert same(model, reloaded)
    images = torch.rand(1, 3, 49, 33)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), reloaded.eval()(images))


def test_a_student_comes_back_from_its_file_alone_in_eval_mode(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save(make(), path, settings=TINY.model_copy(update={"pretrained": "imagenet"}))
    student = load_student(str(path))
    assert same(student, make())
    assert not student.training


def test_a_student_comes_from_our_own_files_only(tmp_path: Path) -> None:
    torch.save(make().state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth: is not a file of weights that attnfd-ray"):
        load_student(tmp_path / "w.pth")


def test_a_student_of_a_users_own_code_is_loaded_only_when_allowed(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    own = ModelSettings(arch="attnfd_ray.models.deeplabv3plus:DeepLabV3Plus", width=0.125)
    save(make(), path, settings=own)
    with pytest.raises(CheckpointError, match=r"header names .* code \(attnfd_ray"):
        load_student(path)
    assert same(load_student(path, own_code=True), make())


def test_equal_weights_give_equal_files_and_leave_nothing_beside_them(tmp_path: Path) -> None:
    model = make()
    save(model, tmp_path / "a.safetensors")
    save(model, tmp_path / "b.safetensors")
    assert model_hash(tmp_path / "a.safetensors") == model_hash(tmp_path / "b.safetensors")
    save(make(1), tmp_path / "b.safetensors")
    assert model_hash(tmp_path / "a.safetensors") != model_hash(tmp_path / "b.safetensors")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_a_channels_last_network_is_saved_like_any_other(tmp_path: Path) -> None:
    model = make()
    save(model, tmp_path / "a.safetensors")
    save(model.to(memory_format=torch.channels_last), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_teachers_settings_are_saved_as_those_of_its_network(tmp_path: Path) -> None:
    settings = TeacherSettings(
        backbone="resnet18", width=0.125, checkpoint="/private/teacher.pth", min_miou=0.5
    )
    save(make(), tmp_path / "t.safetensors", settings=settings)
    header = read_header(tmp_path / "t.safetensors")
    assert header is not None
    assert header.settings == TINY
    assert b"private" not in (tmp_path / "t.safetensors").read_bytes()


def test_a_file_that_cannot_be_written_is_our_error_and_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "student.safetensors"
    save(make(), path)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StoreError, match=r"student.safetensors: cannot be written \(No space left on device\)$"
    ):
        save(make(1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_only_our_own_files_have_a_header(tmp_path: Path) -> None:
    torch.save(make().state_dict(), tmp_path / "w.pth")
    assert read_header(tmp_path / "w.pth") is None
    with pytest.raises(CheckpointError, match="No such file"):
        read_header(tmp_path / "nowhere.safetensors")


def test_a_header_of_a_later_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save(make(), path)
    path.write_bytes(path.read_bytes().replace(rb"\"version\":1", rb"\"version\":2"))
    with pytest.raises(CheckpointError, match="is it of a newer version"):
        read_header(path)


WRAPPERS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda state: state,
    "under state_dict": lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {}}},
    "under model": lambda state: {"model": state},
    "from data parallel": lambda state: {
        f"module.{name}": tensor for name, tensor in state.items()
    },
    "with a numpy score": lambda state: {
        "state_dict": state,
        "best_pred": np.float64(0.7),
        "acc": np.float32(0.9),
    },
    "before torch 0.4.1": lambda state: {
        k: v for k, v in state.items() if not k.endswith("num_batches_tracked")
    },
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
def test_torch_files_of_every_shape_load(
    wrap: Callable[[dict[str, Tensor]], Any], as_zip: bool, tmp_path: Path
) -> None:
    model, path = make(), tmp_path / "w.pth"
    torch.save(wrap(model.state_dict()), path, _use_new_zipfile_serialization=as_zip)
    other = make(1)
    load_weights(other, path, num_classes=4)
    assert same(model, other)


def test_a_score_written_by_an_older_numpy_loads(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(
        {"best_pred": np.float64(0.7), "state_dict": make().state_dict()},
        path,
        _use_new_zipfile_serialization=False,
    )
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    load_weights(make(1), path, num_classes=4)


def test_cbam_is_left_out_of_the_network_and_handed_out_by_location(tmp_path: Path) -> None:
    path, state = tmp_path / "teacher.pth", released_state("resnet18")
    torch.save({"state_dict": state}, path)
    gates = cbam_state(path)
    assert list(gates) == ["backbone", "aspp", "decoder"]
    assert [len(gate) for gate in gates.values()] == [10, 10, 10]
    assert torch.equal(
        gates["aspp"]["ChannelGate.mlp.1.weight"], state["aspp.cbam.ChannelGate.mlp.1.weight"]
    )
    load_weights(build_model(ModelSettings(), num_classes=21), path, num_classes=21)
    path.unlink()


def test_a_file_without_cbam_has_no_gates(tmp_path: Path) -> None:
    save(make(), tmp_path / "s.safetensors")
    assert cbam_state(tmp_path / "s.safetensors") == {}


def test_what_does_not_fit_is_counted_and_named_in_one_line(tmp_path: Path) -> None:
    path, state = tmp_path / "teacher.pth", make().state_dict()
    for name in (
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.num_batches_tracked",
    ):
        del state[f"backbone.{name}"]
    state["fc.weight"] = state["fc.bias"] = torch.zeros(3)
    state["decoder.last_conv.8.bias"] = torch.zeros(21)
    torch.save(state, path)
    assert refusal(path) == (
        "4 missing (backbone.conv1.weight, backbone.bn1.weight, backbone.bn1.bias, ...), 2 "
        "unexpected (fc.weight, fc.bias), 1 of another shape (decoder.last_conv.8.bias [21] here, "
        "[4] needed); it was made for 21 classes, not 4"
    )


def test_another_number_of_classes_is_said_in_so_many_words(tmp_path: Path) -> None:
    path = tmp_path / "voc.pth"
    torch.save(make(num_classes=21).state_dict(), path)
    assert refusal(path).endswith(
        "(decoder.last_conv.8.weight [21, 32, 1, 1] here, [4, 32, 1, 1] needed, "
        "decoder.last_conv.8.bias [21] here, [4] needed); it was made for 21 classes, not 4"
    )


def test_another_width_is_not_taken_for_another_number_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "wide.pth"
    torch.save(make(settings=TINY.model_copy(update={"width": 0.25})).state_dict(), path)
    assert "classes" not in refusal(path)


class Trap:
    """Unpickled by an ordinary load, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(as_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    content = {"state_dict": make().state_dict(), "extra": Trap(tmp_path / "sprung")}
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    needed = "could run code, so it was not loaded; save its state_dict() alone"
    assert refusal(path) == f"asks for 'posix.mkdir', which {needed}"
    assert not (tmp_path / "sprung").exists()
    torch.save(make(), path)
    assert needed in refusal(path)


def test_a_missing_file_a_directory_and_a_file_without_weights_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.pth") == "cannot be read (No such file or directory)"
    assert refusal(tmp_path) == "cannot be read (Is a directory)"
    nothing = "holds no tensors by name, neither bare nor under 'state_dict' or 'model'"
    for content in (
        {"epoch": 3},
        {},
        [torch.zeros(2)],
        torch.zeros(2),
        {"state_dict": {"epoch": 3}},
    ):
        torch.save(content, tmp_path / "w.pth")
        assert refusal(tmp_path / "w.pth") == nothing


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "legacy.pth"])
def test_a_truncated_file_is_refused_wherever_it_was_cut(suffix: str, tmp_path: Path) -> None:
    path, model = tmp_path / f"w.{suffix}", make()
    if suffix == "safetensors":
        save(model, path)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=suffix == "pth")
    content, other = path.read_bytes(), make(1)
    for size in (0, 1, 8, 9, 40, len(content) // 2, len(content) - 5):
        path.write_bytes(content[:size])
        assert refusal(path, other).startswith(
            "cannot be read as weights: cut short, or not a file that"
        )


def test_the_hash_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"abc")
    assert (
        model_hash(tmp_path / "w")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    with pytest.raises(CheckpointError, match="No such file"):
        model_hash(tmp_path / "v")
