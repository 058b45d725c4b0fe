from __future__ import annotations

import hashlib
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from attnfd_ray.config.schema import ModelSettings
from attnfd_ray.errors import CheckpointError, ConfigError
from attnfd_ray.models import build_model
from attnfd_ray.models.imagenet import OURS, download

FILES = {"resnet18": "resnet18-f37072fd.pth", "mobilenet_v2": "mobilenet_v2-b0353104.pth"}
IMAGENET = {name: ModelSettings(backbone=name, pretrained="imagenet") for name in OURS}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""

    def unreachable(*_args: Any, **_kwargs: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize("name", FILES)
def test_weights_in_the_cache_fill_the_backbone_and_change_nothing_else(
    name: str, cache: Path
) -> None:
    cache.mkdir(parents=True)
    torch.manual_seed(5)
    theirs = getattr(torchvision.models, name)()
    torch.save(theirs.state_dict(), cache / FILES[name])
    torch.manual_seed(0)
    plain = build_model(ModelSettings(backbone=name), num_classes=4)
    state_after = torch.get_rng_state()
    torch.manual_seed(0)
    filled = build_model(IMAGENET[name], num_classes=4)
    assert torch.equal(torch.get_rng_state(), state_after)
    for key, tensor in filled.state_dict().items():
        if not key.startswith("backbone."):
            assert torch.equal(tensor, plain.state_dict()[key])
    expected = filled.backbone.from_torchvision(theirs.state_dict())
    assert all(
        torch.equal(tensor, expected[key]) for key, tensor in filled.backbone.state_dict().items()
    )


def test_weights_out_of_reach_are_one_line_that_names_the_file_and_its_place(cache: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        build_model(IMAGENET["resnet18"], num_classes=4)
    assert str(caught.value) == (
        "ImageNet weights of resnet18: cannot be downloaded (<urlopen error no route to host>); "
        "put resnet18-f37072fd.pth (from "
        "https://download.pytorch.org/models/resnet18-f37072fd.pth) into "
        f"{cache}/, give a file with pretrained: PATH, or set pretrained: none"
    )
    assert list(cache.iterdir()) == []


def test_a_cached_file_of_another_network_is_refused(cache: Path) -> None:
    cache.mkdir(parents=True)
    torch.save(
        {"conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}, cache / FILES["resnet18"]
    )
    with pytest.raises(
        CheckpointError,
        match=r"resnet18-f37072fd.pth: 99 missing \(bn1.weight, .*1 of another shape",
    ):
        build_model(IMAGENET["resnet18"], num_classes=4)


@pytest.mark.parametrize("name", OURS)
def test_every_backbone_of_ours_has_weights_on_offer(name: str) -> None:
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    assert weights.url.startswith("https://download.pytorch.org/models/")
    assert len(weights.url.rpartition("-")[2]) == len(
        "f37072fd.pth"
    )  # the digits `download` checks


def test_a_narrow_backbone_and_one_of_ones_own_have_no_imagenet_weights(cache: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no weights for resnet18 at width 0.5; set pretrained: none or PATH"
    ):
        build_model(IMAGENET["resnet18"].model_copy(update={"width": 0.5}), num_classes=4)
    own = IMAGENET["resnet18"].model_copy(update={"backbone": "attnfd_ray.models.resnet:resnet18"})
    with pytest.raises(ConfigError, match=r"no weights for attnfd_ray.models.resnet:resnet18"):
        build_model(own, num_classes=4)


def test_a_download_arrives_whole_under_the_digits_of_its_hash(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    path = tmp_path / "cache" / f"net-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    download(source.as_uri(), path)
    assert path.read_bytes() == b"weights"
    assert list(path.parent.iterdir()) == [path]


def test_other_bytes_than_the_name_promises_are_thrown_away(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    with pytest.raises(ValueError, match="what came has SHA-256 "):
        download(source.as_uri(), tmp_path / "cache" / "net-00000000.pth")
    assert os.listdir(tmp_path / "cache") == []  # noqa: PTH208


def test_a_server_that_says_nothing_does_not_hold_us(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(OSError, match="timed out"):
            download(
                f"http://127.0.0.1:{port}/net-00000000.pth",
                tmp_path / "net-00000000.pth",
                timeout_s=0.2,
            )
    assert list(tmp_path.iterdir()) == []
