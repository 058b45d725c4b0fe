"""A checkpoint is complete, or it is ignored."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attnfd_ray.errors import CheckpointError, StoreError
from attnfd_ray.train import checkpoint

RECORD = {"epoch": 1, "val_miou": 0.1 + 0.2, "class_iou": [None, 1 / 3]}


def state(value: float = 1.0) -> dict[str, Any]:
    return {
        "task": {"weight": torch.full((3, 4), value)},
        "optimizer": {"param_groups": [{"lr": 0.1}]},
        "scaler": {},
    }


def save(root: Path, epoch: int) -> Path:
    checkpoint.save(root, epoch=epoch, state=state(epoch), record=RECORD | {"epoch": epoch})
    return root / f"epoch-{epoch:04d}"


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_was_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 7)
    found = checkpoint.latest(tmp_path / "checkpoints")
    assert found is not None
    assert (found.epoch, found.record) == (7, RECORD | {"epoch": 7})
    loaded = found.load()
    assert torch.equal(loaded["task"].pop("weight"), state(7)["task"].pop("weight"))
    assert loaded == {"task": {}, "optimizer": {"param_groups": [{"lr": 0.1}]}, "scaler": {}}


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "nowhere") is None


def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save(tmp_path, epoch)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0003"]
    assert sorted(path.name for path in (tmp_path / "epoch-0003").iterdir()) == [
        "manifest.json",
        "state.pt",
    ]


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "torn state": lambda path: truncate(path / "state.pt", 100),
    "empty state": lambda path: truncate(path / "state.pt", 0),
    "flipped bit": lambda path: flip_a_bit(path / "state.pt"),
    "no state": lambda path: (path / "state.pt").unlink(),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "torn manifest": lambda path: truncate(path / "manifest.json", 30),
    "binary manifest": lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe\x00"),
    "empty manifest": lambda path: (path / "manifest.json").write_text("{}"),
    "a list for a manifest": lambda path: (path / "manifest.json").write_text("[]"),
    "not yet renamed": lambda path: path.rename(path.with_name(path.name + ".writing")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_was_never_there(damage: Callable[[Path], Any], tmp_path: Path) -> None:
    older = save(tmp_path, 1)
    shutil.copytree(older, tmp_path / "kept")
    newer = save(tmp_path, 2)
    (tmp_path / "kept").rename(older)  # as if killed before it was deleted
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.epoch == 2
    damage(newer)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.epoch == 1
    shutil.rmtree(older)
    assert checkpoint.latest(tmp_path) is None


def test_what_a_killed_run_left_is_cleared_by_the_next_save(tmp_path: Path) -> None:
    for name in ("epoch-0001.writing", "epoch-0002.writing", "epoch-0002"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.pt").write_bytes(b"half of")
    save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0002"]
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.epoch == 2


def test_epochs_are_ordered_as_numbers(tmp_path: Path) -> None:
    early = save(tmp_path, 9999)
    shutil.copytree(early, tmp_path / "kept")
    save(tmp_path, 10000)
    (tmp_path / "kept").rename(early)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.epoch == 10000


@pytest.mark.parametrize("call", [1, 2, 3], ids=["state", "manifest", "directory"])
def test_a_full_disk_is_our_error_in_one_line_and_keeps_the_one_before(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    calls = iter(range(1, 100))

    def full(_descriptor: int) -> None:
        if next(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        save(tmp_path, 2)
    assert (
        str(caught.value)
        == f"{tmp_path / 'epoch-0002'}: cannot be written: No space left on device"
    )
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert (tmp_path / "epoch-0001").is_dir()
    assert not list(tmp_path.glob("*.writing"))


def test_a_disk_that_fills_up_under_torch_is_our_error_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    class Full:
        """A file on a disk with space for a header only."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: Any) -> int:
            if self.file.tell() + len(content) > 200:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(content))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    def open_full(path: Path, mode: str = "r", **others: Any) -> Any:
        file = real(path, mode, **others)
        return Full(file) if mode == "wb" else file

    save(tmp_path, 1)
    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(StoreError) as caught:
        save(tmp_path, 2)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'epoch-0002'}: cannot be written: ")
    assert "\n" not in message
    monkeypatch.undo()
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.epoch == 1


def test_a_path_that_cannot_be_written_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where a directory should be")
    with pytest.raises(
        StoreError, match="checkpoints/epoch-0001: cannot be written: Not a directory"
    ):
        save(tmp_path / "checkpoints", 1)


class Trap:
    """Leaves a directory when it is unpickled by an ordinary load."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_run_code_runs_none(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    torch.save({"task": Trap(tmp_path / "sprung")}, path / "state.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"] = checkpoint._sha256(path / "state.pt")
    (path / "manifest.json").write_text(json.dumps(manifest))
    found = checkpoint.latest(tmp_path)
    assert found is not None
    with pytest.raises(CheckpointError) as caught:
        found.load()
    advice = f"start over with --fresh, or delete {path.parents[1]}"
    assert str(caught.value) == f"{path}: cannot be read as tensors and numbers; {advice}"
    assert not (tmp_path / "sprung").exists()
