"""Small runs on toyscenes, in this process or in others, and comparisons of their results."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from attnfd_ray.config.overrides import set_dotted
from attnfd_ray.config.schema import ExperimentSettings, ModelSettings
from attnfd_ray.data.datasets.base import SegmentationDataset, open_dataset
from attnfd_ray.data.generate.toyscenes import write_toyscenes
from attnfd_ray.data.loading.reader_pool import ReaderPool
from attnfd_ray.distill.method import method_class
from attnfd_ray.distill.teacher import FrozenTeacher
from attnfd_ray.models import build_model
from attnfd_ray.train import checkpoint
from attnfd_ray.train.records import EpochRecord, Outcome
from attnfd_ray.train.step import StepRunner
from attnfd_ray.train.trainer import Trainer

CPU = torch.device("cpu")
TEACHER = ModelSettings(backbone="resnet18", width=0.25)
SIZE, TRAIN_IMAGES, VAL_IMAGES = 32, 10, 6
PATIENCE_S = 60

Batch = tuple[Tensor, Tensor]


def write_toys(root: Path) -> Path:
    """Write 10 train and 6 val images of 32 pixels."""
    write_toyscenes(root, size=SIZE, train=TRAIN_IMAGES, val=VAL_IMAGES)
    return root


def experiment(root: Path, **changes: Any) -> ExperimentSettings:
    """Return AttnFD at width 1/8: two epochs of two steps of four images.

    `changes` are dotted paths with __ for a dot.
    """
    tree: dict[str, Any] = {
        "experiment": "toy",
        "data": {"name": "toyscenes", "root": str(root), "crop": [SIZE, SIZE]},
        "teacher": {**TEACHER.model_dump(), "checkpoint": "/no/such/teacher.pth"},
        "student": {"backbone": "resnet18", "width": 0.125},
        "method": {"name": "attnfd", "layers": ["stage4", "decoder"]},
        "train": {"epochs": 2, "batch_size": 4},
    }
    for path, value in changes.items():
        set_dotted(tree, path.replace("__", "."), value)
    return ExperimentSettings.model_validate(tree)


def plain(root: Path, **changes: Any) -> ExperimentSettings:
    """Return the experiment without a teacher."""
    return experiment(root, **{"method": {"name": "none"}, "teacher": None, **changes})


def datasets(settings: ExperimentSettings) -> tuple[SegmentationDataset, SegmentationDataset]:
    data = settings.data
    return open_dataset(data, split=data.train_split), open_dataset(data, split=data.val_split)


def make_teacher(num_classes: int) -> FrozenTeacher:
    """Return the same teacher every time, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return FrozenTeacher(build_model(TEACHER, num_classes=num_classes))


def make_run(settings: ExperimentSettings, directory: Path, **others: Any) -> Trainer:
    train_set, val_set = datasets(settings)
    if method_class(settings).needs_teacher:
        others.setdefault("teacher", make_teacher(train_set.num_classes))
    readers = ReaderPool(
        [train_set, val_set, *filter(None, [others.get("test_set")])], settings.data.loader_workers
    )
    return Trainer(
        settings,
        directory=directory,
        train_set=train_set,
        val_set=val_set,
        readers=readers,
        device=CPU,
        **others,
    )


class Callback(list[EpochRecord]):
    """Keeps every record and never stops a run."""

    def __call__(self, record: EpochRecord) -> bool:
        self.append(record)
        return False


def train(settings: ExperimentSettings, directory: Path) -> tuple[Outcome, list[EpochRecord]]:
    """Run or resume to the end; return the outcome and the records of this attempt."""
    records = Callback()
    return make_run(settings, directory).run(records), records


def uneven_batch() -> Batch:
    """Return four images, of which the first has hardly a labelled pixel and the second none."""
    rng = torch.Generator().manual_seed(0)
    images, labels = (
        torch.randn((4, 3, 33, 33), generator=rng),
        torch.randint(12, (4, 33, 33), generator=rng),
    )
    labels[0, 1:], labels[1] = 255, 255
    return images, labels


def run_in_double(run: Trainer, batch: Batch) -> dict[str, float]:
    """Run one optimiser step in double precision; return its loss terms over all workers."""
    run.task.double()
    if run.teacher is not None:
        run.teacher.double()
    stepper = StepRunner(
        run.task, run.teacher, run.optimizer, run.scaler, run.settings, device=CPU, total=1
    )
    terms, _ = stepper.epoch([(batch[0].double(), batch[1])], first_step=0)
    return terms


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Return path -> value of everything in nested dicts and lists."""
    children = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list | tuple)
        else None
    )
    if children is None:
        return {path: tree}
    return {
        key: value
        for name, child in children
        for key, value in leaves(child, f"{path}/{name}").items()
    }


def differing_paths(first: Any, second: Any) -> list[str]:
    """Return the paths at which two states are not equal bit for bit."""
    ours, theirs = leaves(first), leaves(second)
    assert ours, "there is something to compare"
    return sorted(
        path
        for path in ours.keys() | theirs.keys()
        if path not in ours or path not in theirs or not _equal(ours[path], theirs[path])
    )


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return bool(first == second)


def final_state(directory: Path) -> dict[str, Any]:
    """Return the last checkpoint's state: student, method, optimiser, scaler."""
    found = checkpoint.latest(directory / "checkpoints")
    assert found is not None
    return found.load()


def scores_of(record: EpochRecord) -> dict[str, Any]:
    """Return the fields of a record, without times."""
    return {
        name: value
        for name, value in vars(record).items()
        if name not in ("wall_s", "images_per_s")
    }


# Other processes. They are forked from a server that has loaded torch and this package, but has
# not computed anything.

Work = Callable[..., Any]
SLOW_TO_IMPORT = [
    "attnfd_ray.train.trainer",
    "attnfd_ray.data.datasets.voc",
    "attnfd_ray.models.deeplabv3plus",
    "torch._dynamo",
]


def start(work: Work, *arguments: Any) -> Any:
    """Start `work` (a module's function) in another process; return the process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_TO_IMPORT)
    process = context.Process(target=_alone, args=(work, *arguments))
    process.start()
    return process


def on_workers(num_workers: int, directory: Path, work: Work, *arguments: Any) -> list[Any]:
    """Call `work(*arguments)` in processes that form one gloo group.

    Return the result of each, by rank.
    """
    directory.mkdir(parents=True)
    processes = [
        start(_as_worker, rank, num_workers, directory, work, *arguments)
        for rank in range(num_workers)
    ]
    for process in processes:
        process.join(PATIENCE_S)
    stuck = [process for process in processes if process.is_alive()]
    for process in stuck:
        process.kill()
        process.join()
    errors = [path.read_text() for path in sorted(directory.glob("*.error"))]
    assert not errors, "\n".join(errors)
    assert not stuck, f"no answer after {PATIENCE_S} s"
    return [
        torch.load(directory / f"{rank}.answer", weights_only=False) for rank in range(num_workers)
    ]


def _alone(work: Work, *arguments: Any) -> None:
    torch.set_num_threads(1)
    work(*arguments)


def _as_worker(rank: int, num_workers: int, directory: Path, work: Work, *arguments: Any) -> None:
    patience = timedelta(seconds=PATIENCE_S / 2)
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{directory}/rendezvous",
            rank=rank,
            world_size=num_workers,
            timeout=patience,
        )
        torch.save(work(*arguments), directory / f"{rank}.answer")
        dist.barrier()  # a process that leaves early would disconnect the others
        dist.destroy_process_group()
    except BaseException:
        (directory / f"{rank}.error").write_text(f"rank {rank}: {traceback.format_exc()}")
        raise
