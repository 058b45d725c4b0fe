"""The global batch depends on seed and epoch alone, not on workers, processes or interruptions."""

import gc
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attnfd_ray.config.schema import DataSettings, TrainSettings
from attnfd_ray.data.datasets.base import SegmentationDataset, open_dataset
from attnfd_ray.data.loading.loader import TrainLoader, steps_in_epoch, val_batches
from attnfd_ray.data.loading.process_pool import TIMEOUT_S, ProcessPool
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.errors import CapacityError, DataError, RunFailed

Settings = Callable[..., DataSettings]
Batches = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def data(toy: Path, settings: Settings) -> DataSettings:
    return settings(toy, "toyscenes", crop=(24, 32), blur=0.5)


@pytest.fixture
def train(data: DataSettings) -> SegmentationDataset:
    return open_dataset(data, split="train")


@pytest.fixture
def val(data: DataSettings) -> SegmentationDataset:
    return open_dataset(data, split="val")


@pytest.fixture(autouse=True)
def no_process_is_left() -> Any:
    before = set(multiprocessing.active_children())
    yield
    if set(multiprocessing.active_children()) > before:
        gc.collect()
    assert set(multiprocessing.active_children()) <= before


def batches(
    dataset: SegmentationDataset, data: DataSettings, epoch: int = 1, **others: Any
) -> Batches:
    with ReaderPool([dataset], data.loader_workers) as readers:
        return list(loader_of(readers, data, **others).epoch(epoch))


def loader_of(readers: ReaderPool, data: DataSettings, **others: Any) -> TrainLoader:
    return TrainLoader(
        readers.datasets[0], data, readers=readers, **{"global_batch_size": 8, "seed": 3, **others}
    )


def same(first: Batches, second: Batches) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for one, two in zip(first, second, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_a_batch_is_stacked_views(train: SegmentationDataset, data: DataSettings) -> None:
    found = batches(train, data)
    assert len(found) == 4
    for images, labels in found:
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert (images.shape, labels.shape) == ((8, 3, 24, 32), (8, 24, 32))


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_workers_share_the_global_batch_of_one(
    train: SegmentationDataset, data: DataSettings, world_size: int
) -> None:
    alone = batches(train, data)
    parts = [batches(train, data, rank=rank, world_size=world_size) for rank in range(world_size)]
    together = [tuple(map(torch.cat, zip(*step, strict=True))) for step in zip(*parts, strict=True)]
    assert same(alone, together)  # type: ignore[arg-type]


def test_loading_processes_change_nothing_and_stay_from_epoch_to_epoch(
    train: SegmentationDataset, data: DataSettings
) -> None:
    with ReaderPool([train], 2) as readers:
        loader = loader_of(readers, data)
        torch.manual_seed(0)
        state = torch.get_rng_state()
        assert same(list(loader.epoch(1)), batches(train, data, 1))
        pids = {process.pid for process in multiprocessing.active_children()}
        assert len(pids) == 2
        assert same(list(loader.epoch(2)), batches(train, data, 2))
        assert {process.pid for process in multiprocessing.active_children()} == pids
        assert torch.equal(state, torch.get_rng_state())


def test_an_epoch_does_not_depend_on_earlier_epochs(
    train: SegmentationDataset, data: DataSettings
) -> None:
    loader = loader_of(ReaderPool([train]), data)
    for epoch in (1, 2):
        list(loader.epoch(epoch))
    uninterrupted = list(loader.epoch(3))
    assert same(uninterrupted, batches(train, data, 3))


def test_epochs_and_seeds_differ(train: SegmentationDataset, data: DataSettings) -> None:
    first = batches(train, data)
    assert not same(first, batches(train, data, 2))
    assert not same(first, batches(train, data, seed=4))


class Numbers(SegmentationDataset):
    """Images whose labels are their own index, without files."""

    class_names = ("a",)
    palette = ((0, 0, 0),)

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def list_samples(self) -> Any:
        return []

    def read(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros((3, 2, 2), dtype=torch.uint8), torch.full(
            (2, 2), index, dtype=torch.uint8
        )


@pytest.fixture
def tiny(settings: Settings) -> DataSettings:
    return settings(Path("unused"), crop=(2, 2), scale=(1.0, 1.0))


def seen(count: int, data: DataSettings, **others: Any) -> list[int]:
    return [
        int(n) for _, labels in batches(Numbers(count), data, **others) for n in labels[:, 0, 0]
    ]


def test_an_epoch_shows_an_image_once_and_drops_the_rest_of_the_last_global_batch(
    tiny: DataSettings,
) -> None:
    first = seen(22, tiny)
    assert len(first) == len(set(first)) == 16
    shown = {number for epoch in range(20) for number in seen(22, tiny, epoch=epoch)}
    assert shown == set(range(22))
    assert sorted(first) != first


def test_a_split_smaller_than_a_batch_starts_over(tiny: DataSettings) -> None:
    shown = seen(3, tiny)
    assert len(shown) == 8
    assert sorted(shown[:3]) == [0, 1, 2]
    assert shown[:3] == shown[3:6]
    assert shown[6:] == shown[:2]


def test_an_image_shown_twice_in_an_epoch_is_seen_in_two_views(
    train: SegmentationDataset, data: DataSettings, settings: Settings
) -> None:
    (images, _), (again, _) = batches(train, data, global_batch_size=32, steps_per_epoch=2)
    assert all(not torch.equal(one, two) for one, two in zip(images, again, strict=True))


def test_the_number_of_steps_can_be_set(tiny: DataSettings) -> None:
    assert len(seen(22, tiny, steps_per_epoch=1)) == 8
    assert len(seen(22, tiny, steps_per_epoch=5)) == 40
    assert set(seen(22, tiny, steps_per_epoch=5)) == set(range(22))


@pytest.mark.parametrize(
    ("num_images", "batch", "asked", "steps"),
    [
        (367, 16, None, 22),
        (16, 16, None, 1),
        (15, 16, None, 1),
        (31, 16, None, 1),
        (367, 16, 5, 5),
        (1, 16, 9, 9),
    ],
)
def test_steps_in_an_epoch(num_images: int, batch: int, asked: int | None, steps: int) -> None:
    assert steps_in_epoch(num_images, batch, asked) == steps


@pytest.mark.parametrize("loader_workers", [0, 2])
@pytest.mark.parametrize(("world_size", "limit"), [(1, None), (3, None), (3, 7), (4, 2), (2, 99)])
def test_every_scored_image_comes_once_over_all_ranks(
    val: SegmentationDataset,
    data: DataSettings,
    world_size: int,
    limit: int | None,
    loader_workers: int,
) -> None:
    data = data.model_copy(update={"val_limit": limit, "input_scale": 0.5})
    with ReaderPool([val], loader_workers) as readers:
        ranks = [
            list(val_batches(val, data, readers=readers, rank=rank, world_size=world_size))
            for rank in range(world_size)
        ]
    count = min(limit or len(val), len(val))
    assert sum(map(len, ranks)) == count
    for index in range(count):
        image, label = ranks[index % world_size][index // world_size]
        assert (image.shape, label.shape) == ((1, 3, 32, 32), (1, 64, 64))
        assert torch.equal(label[0], val.read(index)[1].long())


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_a_broken_file_ends_the_epoch_with_its_one_line(
    make_voc: Callable[..., Path], settings: Settings, loader_workers: int
) -> None:
    root = make_voc()
    mask = root / "VOCdevkit/VOC2012/SegmentationClass/a2.png"
    mask.write_bytes(mask.read_bytes()[:60])
    data = settings(root, loader_workers=loader_workers)
    with pytest.raises(DataError) as caught:
        batches(open_dataset(data, split="train"), data, global_batch_size=1)
    assert str(caught.value).startswith(f"{mask}: cannot be read (")
    assert str(caught.value).endswith("copy it again")
    assert "\n" not in str(caught.value)


def test_an_interrupted_epoch_does_not_change_the_next(
    train: SegmentationDataset, data: DataSettings
) -> None:
    with ReaderPool([train], 2) as readers:
        loader = loader_of(readers, data, global_batch_size=4)
        next(loader.epoch(1))
        assert same(list(loader.epoch(2)), batches(train, data, 2, global_batch_size=4))
        half = loader.epoch(3)
        next(half)
        readers.close()
        assert not multiprocessing.active_children()
        assert same(list(loader.epoch(4)), batches(train, data, 4, global_batch_size=4))


def test_an_interrupted_scoring_leaves_no_process(
    val: SegmentationDataset, data: DataSettings
) -> None:
    with ReaderPool([val], 2) as readers:
        next(val_batches(val, data, readers=readers))
        assert len(multiprocessing.active_children()) == 2
    gc.collect()
    assert not multiprocessing.active_children()


def test_a_killed_process_is_noticed_before_the_step_that_waits_for_it_is_ended() -> None:
    patience_s = TrainSettings().step_patience_s
    assert patience_s is not None
    assert patience_s > TIMEOUT_S


def test_a_killed_process_is_a_failed_run(train: SegmentationDataset, data: DataSettings) -> None:
    with ReaderPool([train], 1) as readers:
        epoch = loader_of(readers, data, global_batch_size=4, steps_per_epoch=200).epoch(1)
        next(epoch)
        (process,) = multiprocessing.active_children()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(
            RunFailed, match=r"^data\.loader_workers 1: a loading process stopped answering"
        ) as caught:
            list(epoch)
        assert "\n" not in str(caught.value)


def doze(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_a_process_that_hangs_is_a_failed_run_after_the_time_limit() -> None:
    processes = ProcessPool(doze, 1, timeout_s=0.3)
    with pytest.raises(RunFailed, match=r"timed out after 0\.3 seconds"):
        list(processes.map([0.0, 1.5]))


def broken(_: int) -> int:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("num_processes", [0, 1])
def test_a_bug_keeps_its_traceback(num_processes: int) -> None:
    processes = ProcessPool(broken, num_processes)
    with pytest.raises(RuntimeError, match="a bug"):
        list(processes.map([1]))
    processes.close()
    assert not multiprocessing.active_children()


def test_processes_serve_one_run_after_another(
    train: SegmentationDataset, val: SegmentationDataset, data: DataSettings
) -> None:
    with ReaderPool([train, val], 1) as readers:
        one = list(loader_of(readers, data).epoch(1))
        (process,) = multiprocessing.active_children()
        scored = list(val_batches(val, data, readers=readers))
        other = list(
            loader_of(readers, data.model_copy(update={"crop": (16, 16)}), seed=4).epoch(1)
        )
        assert multiprocessing.active_children() == [process]
    assert same(one, batches(train, data))
    assert same(scored, list(val_batches(val, data, readers=ReaderPool([val]))))
    assert same(other, batches(train, data.model_copy(update={"crop": (16, 16)}), seed=4))


def test_shared_memory_that_is_too_small_is_named_before_the_first_batch(
    train: SegmentationDataset, data: DataSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnfd_ray.data.loading.reader_pool.free_bytes", lambda _: 64 * 2**20)
    data = data.model_copy(update={"crop": (512, 1024)})
    with ReaderPool([train], 4) as readers:
        with pytest.raises(CapacityError) as caught:
            loader_of(readers, data)
        loader_of(readers, data, world_size=8)  # an eighth of the batch fits
    assert str(caught.value).startswith(
        "data.loader_workers 4: /dev/shm has 64 MiB free and batches made ahead need 144; set fewer"
    )
    loader_of(ReaderPool([train]), data)  # the training process shares nothing


def test_a_dataset_can_be_sent_to_a_spawned_process(
    val: SegmentationDataset, data: DataSettings
) -> None:
    copy = pickle.loads(pickle.dumps(val))
    expected = list(val_batches(val, data, readers=ReaderPool([val])))
    assert same(expected, list(val_batches(copy, data, readers=ReaderPool([copy]))))
