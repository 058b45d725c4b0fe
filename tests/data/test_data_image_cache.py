"""Decoded images are cached once for all processes of a machine, within a limit, while in use."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_data_loader import loader_of, same

from attnfd_ray.config.overrides import config_hash, differences
from attnfd_ray.config.schema import DataSettings, ExperimentSettings
from attnfd_ray.data.checker.check import quick_check
from attnfd_ray.data.datasets.base import SegmentationDataset, open_dataset
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.data.storage import free_space, image_cache
from attnfd_ray.data.storage.image_cache import ImageCache, forget_memory
from attnfd_ray.errors import DataError

Settings = Callable[..., DataSettings]
PIXELS = 64 * 64
CACHED_BYTES = 16 + 4 * PIXELS
RED, BLUE = [255, 0, 0], [0, 0, 255]


@pytest.fixture(params=["memory", "disk"])
def data(
    toy: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> Iterator[DataSettings]:
    """Settings with a cache in a directory of the test."""
    monkeypatch.setenv("ATTNFD_CACHE", str(tmp_path / "cache"))
    memory = free_space.SHARED_MEMORY / f"attnfd-ray-test-{os.getpid()}"
    monkeypatch.setattr(image_cache, "_memory_directory", lambda: memory)
    yield settings(toy, "toyscenes", crop=(24, 32), cache=request.param)
    subprocess.run(["rm", "-rf", str(memory)], check=True)


@pytest.fixture
def directory(data: DataSettings) -> Path:
    return image_cache._cache_directory(data)


def cached_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*/*") if path.name.isdigit())


def opened(data: DataSettings, split: str = "train") -> SegmentationDataset:
    return open_dataset(data, split=split)


def test_cached_images_equal_decoded_ones(data: DataSettings, directory: Path) -> None:
    plain = opened(data.model_copy(update={"cache": "none"}))
    cached = opened(data)
    for _ in range(2):  # decoded, then from the cache
        for index in range(len(plain)):
            for ours, decoded in zip(cached.read(index), plain.read(index), strict=True):
                assert torch.equal(ours, decoded)
                assert ours.stride() == decoded.stride()
    assert len(cached_files(directory)) == len(plain)


def test_batches_are_the_same_with_and_without_a_cache(data: DataSettings) -> None:
    plain, cached = opened(data.model_copy(update={"cache": "none"})), opened(data)
    with ReaderPool([plain], 0) as alone, ReaderPool([cached], 2) as readers:
        for epoch in (1, 2):
            assert same(
                list(loader_of(readers, data).epoch(epoch)),
                list(loader_of(alone, data).epoch(epoch)),
            )


def test_a_file_is_decoded_once_for_all_readers(
    data: DataSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = opened(data), opened(data)
    for index in range(len(first)):
        first.read(index)
    monkeypatch.setattr(SegmentationDataset, "_decode", lambda *_: pytest.fail("it was cached"))
    for index in range(len(second)):
        second.read(index)


def test_writing_to_a_read_image_does_not_change_the_cache(data: DataSettings) -> None:
    dataset = opened(data)
    dataset.read(0)
    image, label = dataset.read(0)
    before = image.clone()
    image.zero_(), label.zero_()
    assert torch.equal(dataset.read(0)[0], before)


def test_a_changed_file_is_decoded_again(data: DataSettings, make_voc: Callable[..., Path]) -> None:
    root = make_voc()
    data = data.model_copy(update={"name": "voc", "root": str(root)})
    before = opened(data)
    old, _ = before.read(0)
    image_path, _ = before.paths(0)
    stamp = image_path.stat()
    Image.fromarray(255 - np.asarray(Image.open(image_path))).save(image_path)
    os.utime(image_path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    new, _ = opened(data).read(0)
    assert new.shape == old.shape
    assert not torch.equal(new, old)


def test_the_limit_is_never_exceeded_and_other_images_are_decoded(
    data: DataSettings, directory: Path
) -> None:
    limit_bytes = 5.5 * CACHED_BYTES
    data = data.model_copy(update={"cache_gib": limit_bytes / 2**30})
    seen, over = [], threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(sum(path.stat().st_size for path in cached_files(directory)))

    watcher = threading.Thread(target=watch)
    plain, train, val = (
        opened(data.model_copy(update={"cache": "none"})),
        opened(data),
        opened(data, "val"),
    )
    watcher.start()
    for index in range(len(plain)):
        assert torch.equal(train.read(index)[0], plain.read(index)[0])
    val.read(0)
    over.set()
    watcher.join()
    assert len(cached_files(directory)) == 5
    assert max(seen) <= limit_bytes
    assert int((directory / "used").read_text()) == 5 * CACHED_BYTES


def read_all(data: DataSettings, started: Any) -> None:
    dataset = open_dataset(data, split="train")
    started.wait()
    for index in range(len(dataset)):
        dataset.read(index)


def test_two_processes_cache_each_image_once_and_count_it_once(
    data: DataSettings, directory: Path
) -> None:
    context = multiprocessing.get_context("fork")
    together = context.Barrier(2)
    readers = [context.Process(target=read_all, args=(data, together)) for _ in range(2)]
    holder = opened(data)
    for process in readers:
        process.start()
    for process in readers:
        process.join(30)
        assert process.exitcode == 0
    assert len(cached_files(directory)) == len(holder)
    assert int((directory / "used").read_text()) == len(holder) * CACHED_BYTES
    assert not list(directory.glob("*/*.part"))


def test_a_cache_can_be_opened_while_two_processes_fill_another(
    data: DataSettings, directory: Path
) -> None:
    context = multiprocessing.get_context("fork")
    together = context.Barrier(3)
    readers = [context.Process(target=read_all, args=(data, together)) for _ in range(2)]
    for process in readers:
        process.start()
    together.wait(30)
    tiny = (torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8))
    for number in range(60):  # each counts all files while parts become images
        cache = ImageCache(directory, f"other{number}", limit_bytes=10**9)
        cache.read(0, lambda: tiny)
        cache.close()
    for process in readers:
        process.join(30)
        assert process.exitcode == 0


def test_a_link_to_another_directory_is_not_followed_when_memory_is_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home/thesis").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "home")
    monkeypatch.setattr(image_cache, "_memory_directory", lambda: tmp_path / "link")
    forget_memory()
    assert [path.name for path in tmp_path.glob("home/*")] == ["thesis"]


def test_masks_whose_colours_mean_something_else_are_decoded_again(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNFD_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "mine"
    for kind in ("images", "masks"):
        (root / kind / "train").mkdir(parents=True)
        pixels = np.array([[RED, BLUE]], dtype=np.uint8)
        Image.fromarray(pixels).save(root / kind / "train/a.png")
    data = settings(root, "folder", cache="disk")
    seen = []
    for one, other in ((RED, BLUE), (BLUE, RED)):
        classes = f"[{{name: one, color: {one}}}, {{name: other, color: {other}}}]"
        (root / "classes.yaml").write_text(f"masks_hold: colors\nclasses: {classes}\n")
        dataset = opened(data)
        seen += [dataset.read(0)[1].tolist(), dataset.read(0)[1].tolist()]
        dataset.close()
    assert seen == [[[0, 1]], [[0, 1]], [[1, 0]], [[1, 0]]]


def test_the_last_user_frees_memory_and_a_disk_keeps_its_files(
    data: DataSettings, directory: Path
) -> None:
    first, second = opened(data), opened(data)
    first.read(0)
    first.close()
    assert len(cached_files(directory)) == 1
    second.close()
    assert len(cached_files(directory)) == (data.cache == "disk")


KILLED = """
import os, signal, sys
from pathlib import Path
import attnfd_ray.data.storage.image_cache as image_cache
import numpy, torch
directory = Path(sys.argv[1])
directory.mkdir(parents=True, exist_ok=True)
cache = image_cache.ImageCache(directory, "state", limit_bytes=10**9)
decode = lambda: (torch.ones(3, 4, 4, dtype=torch.uint8), torch.ones(4, 4, dtype=torch.uint8))
cache.read(0, decode)
numpy.ascontiguousarray = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
cache.read(1, decode)
"""


@pytest.mark.slow
def test_the_part_of_a_killed_process_is_neither_read_nor_counted(
    data: DataSettings, directory: Path
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(directory)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in directory.glob("state/*.part")] == ["1.part"]
    zeros = (torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8))
    again = ImageCache(directory, "state", limit_bytes=10**9)
    assert int(again.read(0, lambda: zeros)[0].sum()) == 48  # it was complete
    assert int(again.read(1, lambda: zeros)[0].sum()) == 0  # it was not complete
    assert len(cached_files(directory)) == 2
    assert int((directory / "used").read_text()) == 2 * (16 + 64)
    again.close()


@pytest.mark.slow
def test_memory_of_a_killed_process_is_freed_by_the_next_one(
    data: DataSettings, directory: Path
) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(directory)], timeout=60)
    assert (directory / "state").is_dir()
    forget_memory()
    assert (directory / "state").is_dir() == (data.cache == "disk")


def test_memory_can_be_freed_while_it_is_in_use(data: DataSettings, directory: Path) -> None:
    dataset = opened(data)
    image, _ = dataset.read(0)
    again, _ = dataset.read(0)
    forget_memory(in_use_too=True)
    assert torch.equal(again, image)  # mapped files stay readable
    assert torch.equal(dataset.read(0)[0], image)
    assert bool(cached_files(directory)) == (data.cache == "disk")
    dataset.close()


def test_a_full_disk_cache_removes_unused_directories(
    toy: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNFD_CACHE", str(tmp_path / "cache"))
    data = settings(toy, "toyscenes", cache="disk", cache_gib=3.5 * CACHED_BYTES / 2**30)
    directory = image_cache._cache_directory(data)
    old, held = opened(data), opened(data, "val")
    for index in range(2):
        old.read(index)
    held.read(0)
    old.close()
    new = open_dataset(
        data.model_copy(update={"name": "voc"}), split="val"
    )  # another class has another key
    new.read(0)
    names = {path.parent.name for path in cached_files(directory)}
    assert len(names) == 2  # `old` is removed, those in use are not
    held.close(), new.close()


@pytest.mark.parametrize("damage", [b"", b"x" * 7, b"\xff" * 16, b"\0" * 100])
def test_a_damaged_file_is_decoded_instead(
    data: DataSettings, directory: Path, damage: bytes
) -> None:
    dataset = opened(data)
    image, _ = dataset.read(0)
    cached_files(directory)[0].write_bytes(damage)
    assert torch.equal(dataset.read(0)[0], image)
    assert cached_files(directory)[0].stat().st_size == CACHED_BYTES  # and cached again


def test_a_cache_that_vanishes_or_cannot_be_written_is_not_an_error(
    data: DataSettings, directory: Path
) -> None:
    dataset = opened(data)
    dataset.read(0)
    subprocess.run(["rm", "-rf", str(directory)], check=True)
    assert dataset.read(0)[0].shape == (3, 64, 64)
    assert dataset.read(1)[0].shape == (3, 64, 64)
    dataset.close()


def test_more_than_there_is_is_refused_before_anything_starts(
    data: DataSettings, directory: Path
) -> None:
    with pytest.raises(DataError) as caught:
        quick_check(data.model_copy(update={"cache_gib": 1e6}))
    where = "/dev/shm" if data.cache == "memory" else str(directory)
    assert str(caught.value).startswith(f"data.cache_gib 1e+06: {where} has ")
    assert ("--shm-size" if data.cache == "memory" else "ATTNFD_CACHE") in str(caught.value)


def test_a_directory_that_cannot_be_made_is_one_line(
    toy: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("ATTNFD_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        DataError, match=r"^data\.cache disk: .* cannot be written \(.*\); set ATTNFD_CACHE"
    ):
        quick_check(settings(toy, "toyscenes", cache="disk"))


def test_a_link_where_the_cache_should_be_is_refused(
    data: DataSettings, directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="belongs to another user, or is a link"):
        quick_check(data)
    directory.unlink()


def test_by_default_a_cache_takes_half_of_the_free_memory_or_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(free_space, "free_bytes", lambda _: 100)
    monkeypatch.setattr(free_space, "_free_memory_bytes", lambda: 60)
    assert free_space.cache_limit_bytes(Path("/disk"), 20, None) == 60
    assert (
        free_space.cache_limit_bytes(free_space.SHARED_MEMORY / "x", 20, None) == 40
    )  # memory is scarcer than /dev/shm
    assert free_space.cache_limit_bytes(Path("/disk"), 20, 100 / 2**30) == 100


def test_a_cache_does_not_change_the_config_hash(toy: Path) -> None:
    tree: dict[str, Any] = {
        "experiment": "toy",
        "data": {"name": "toyscenes", "root": str(toy), "crop": [32, 32]},
        "student": {"backbone": "resnet18"},
        "method": {"name": "none"},
    }
    plain = ExperimentSettings.model_validate(tree)
    cached = ExperimentSettings.model_validate(
        tree | {"data": tree["data"] | {"cache": "memory", "cache_gib": 2}}
    )
    assert config_hash(plain) == config_hash(cached)
    assert differences(plain.model_dump(mode="json"), cached.model_dump(mode="json")) == []


def test_loading_processes_end_with_their_pool(data: DataSettings, directory: Path) -> None:
    dataset = opened(data)
    with ReaderPool([dataset], 2) as readers:
        list(loader_of(readers, data).epoch(1))
    dataset.close()
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert bool(cached_files(directory)) == (data.cache == "disk")
