"""One process of a worker group, without Ray."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from attnfd_ray.config.overrides import teacher_experiment, with_values
from attnfd_ray.config.schema import ExperimentSettings
from attnfd_ray.data.checker.check import quick_check
from attnfd_ray.models import build_model
from attnfd_ray.runtime.jobs.client import record_failure
from attnfd_ray.runtime.jobs.failure_policy import failure
from attnfd_ray.runtime.jobs.messages import Event, Job
from attnfd_ray.runtime.jobs.trial_writer import TrialWriter
from attnfd_ray.runtime.jobs.worker import GroupMustRestart, Worker
from attnfd_ray.search.objectives import measured_metrics
from attnfd_ray.store.store import Store

Make = Callable[[], ExperimentSettings]


class Pushed:
    """Keeps the events that a worker pushes, and stops a job after an epoch if asked to."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.events: list[Event] = []
        self.stop_after = stop_after

    def __call__(self, job: Job, event: Event) -> str | None:
        self.events.append(event)
        if event.metrics.get("epoch") == self.stop_after:
            return "below the cut-off"
        return None


def job(settings: ExperimentSettings, **changes: Any) -> Job:
    known = {
        "kind": "train",
        "trial_id": "t1",
        "role": "trial",
        "settings_json": settings.model_dump_json(),
    }
    return Job(**known | changes)


def work(job: Job, pushed: Pushed | None = None) -> Pushed:
    pushed = pushed or Pushed()
    Store.open(job.settings.store, create=True)
    Worker(torch.device("cpu"), pushed).do(job)
    return pushed


def fail(job: Job, kind: str, text: str | None) -> None:
    """Record a failure as the driver does."""
    record_failure(Store.open(job.settings.store, create=False), job, kind, text or "")


@pytest.fixture
def alone(tree: dict[str, Any], settings: Make) -> ExperimentSettings:
    tree |= {"method": {"name": "none"}, "teacher": None}
    return settings()


def trial_row(settings: ExperimentSettings) -> dict[str, Any]:
    (row,) = Store.open(settings.store, create=False).trials().to_pylist()
    return row


def test_a_finished_job_leaves_a_row_an_epoch_and_one_for_the_trial(
    alone: ExperimentSettings,
) -> None:
    found = quick_check(alone.data).data_hash
    pushed = work(job(alone, data_hash=found, git_commit="g"))
    assert [event.kind for event in pushed.events] == ["epoch"] * 4 + ["done"]
    rows = Store.open(alone.store, create=False).epochs().to_pylist()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert all(len(row["class_iou"]) == 12 and 0 <= row["val_miou"] <= 1 for row in rows)
    row = trial_row(alone)
    assert (row["state"], row["epochs_done"], row["attempt"], row["data_hash"]) == (
        "COMPLETE",
        4,
        1,
        found,
    )
    assert row["checkpoint"] == "runs/t1/best.safetensors"
    assert json.loads(row["config_json"])["train"]["epochs"] == 4
    assert row["best_val_miou"] == max(epoch["val_miou"] for epoch in rows)


def test_other_files_than_on_the_drivers_node_are_a_failure_of_the_data(
    alone: ExperimentSettings,
) -> None:
    (event,) = work(job(alone, data_hash="0123456789abcdef")).events
    assert event.failure_kind == "DATA"
    assert event.failure_text is not None
    assert event.failure_text.startswith(
        f"{alone.data.root} on {socket.gethostname()}: has other files than on the node where"
    )


def test_a_test_split_has_its_own_score_in_the_row(
    tree: dict[str, Any], settings: Make, tmp_path: Path
) -> None:
    shutil.copytree(tree["data"]["root"], tmp_path / "scenes")
    lists = tmp_path / "scenes/VOCdevkit/VOC2012/ImageSets/Segmentation"
    ids = (lists / "train.txt").read_text().split()
    (lists / "train.txt").write_text("\n".join(ids[4:]))
    (lists / "test.txt").write_text("\n".join(ids[:4]))
    tree |= {"method": {"name": "none"}, "teacher": None}
    tree["data"] |= {"root": str(tmp_path / "scenes"), "test_split": "test"}
    work(job(settings()))
    row = trial_row(settings())
    assert row["test_protocol"] == "toyscenes/test/native/noflip"
    assert 0 < row["test_miou"] < 1
    assert row["test_miou"] != row["best_val_miou"]
    assert len(row["test_class_iou"]) == len(row["class_names"]) == 12
    assert row["class_names"][:3] == ["background", "disc", "ring"]


def test_a_dataset_that_does_not_open_leaves_a_failed_row_and_a_line_for_each_fault(
    tree: dict[str, Any], settings: Make, tmp_path: Path
) -> None:
    shutil.copytree(tree["data"]["root"], tmp_path / "scenes")
    images = sorted((tmp_path / "scenes/VOCdevkit/VOC2012/JPEGImages").glob("val_*"))
    images[0].unlink()
    images[1].write_bytes(b"")
    tree |= {"method": {"name": "none"}, "teacher": None}
    tree["data"]["root"] = str(tmp_path / "scenes")
    pushed = work(job(settings()))
    (event,) = pushed.events
    assert event.failure_kind == "DATA"
    fail(job(settings()), "DATA", event.failure_text)
    assert (trial_row(settings())["state"], trial_row(settings())["failure_kind"]) == (
        "FAILED",
        "DATA",
    )
    error = failure("t1", "DATA", event.failure_text or "")
    assert [
        line.count(name) for line, name in zip(error.problems, ("missing", "empty"), strict=True)
    ] == [1, 1]


def test_search_metrics_are_reported_at_the_end_and_measured_only_then(
    tree: dict[str, Any], settings: Make, tmp_path: Path
) -> None:
    tree |= {
        "method": {"name": "none"},
        "teacher": None,
        "search": {"student.width": {"choice": [0.125, 0.25]}},
    }
    aims = [("val_miou", []), (["val_miou", "student_params"], ["student_params"])]
    for metric, measured in [*aims, (["latency_ms", "val_miou"], ["latency_ms"])]:
        tree |= {"tune": {"metric": metric}, "train": {"epochs": 1, "batch_size": 8}}
        tree["store"] = str(tmp_path / f"store{len(measured)}{metric[0]}")
        *_, done = work(job(settings())).events
        row = trial_row(settings())
        assert measured_metrics(done.metrics) == {name: row[name] for name in measured}
        assert row["student_params"] == sum(
            parameter.numel()
            for parameter in build_model(settings().student, num_classes=12).parameters()
        )
        assert (
            (row["latency_ms"] is not None)
            == (row["latency_protocol"] is not None)
            == (measured == ["latency_ms"])
        )
    assert row["latency_protocol"].startswith("32x32 fp32 on ")
    assert 0 < row["latency_ms"] < 1000


def test_a_job_cut_off_on_its_way_to_stop_trains_no_further_epoch(
    alone: ExperimentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """An error that is not handled."""

    def killed(*_: object) -> None:
        raise Killed

    stopping = job(alone, search_id="s")
    with monkeypatch.context() as patch:
        patch.setattr(TrialWriter, "write_end", killed)
        with pytest.raises(Killed):
            work(stopping, Pushed(stop_after=2))
    again = work(stopping, Pushed(stop_after=2))
    assert [(event.kind, event.metrics["epoch"]) for event in again.events] == [
        ("epoch", 2),
        ("done", 2),
    ]
    row = trial_row(alone)
    assert (row["state"], row["epochs_done"], row["attempt"]) == ("PRUNED", 2, 2)
    rows = Store.open(alone.store, create=False).epochs().to_pylist()
    assert [(row["epoch"], row["attempt"]) for row in rows] == [(1, 1), (2, 1)]


@pytest.mark.parametrize("stop_after", [2, None])
def test_a_job_whose_end_was_written_but_not_reported_is_not_started_again(
    alone: ExperimentSettings, stop_after: int | None
) -> None:
    ended = job(alone, search_id="s")
    first = work(ended, Pushed(stop_after=stop_after)).events[-1]
    before = trial_row(alone)
    (again,) = work(ended).events
    assert again == first
    assert trial_row(alone) == before


def test_a_stopped_job_has_its_reason_and_epoch_in_the_row(alone: ExperimentSettings) -> None:
    work(job(alone), Pushed(stop_after=2))
    row = trial_row(alone)
    assert (row["state"], row["epochs_done"], row["stop_reason"]) == (
        "PRUNED",
        2,
        "below the cut-off",
    )


def test_a_job_given_twice_resumes_and_each_epoch_has_one_row(
    alone: ExperimentSettings,
) -> None:
    work(job(alone), Pushed(stop_after=2))
    pushed = work(job(alone))
    assert [event.metrics["epoch"] for event in pushed.events] == [3, 4, 4]
    rows = Store.open(alone.store, create=False).epochs().to_pylist()
    assert [(row["epoch"], row["attempt"]) for row in rows] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert trial_row(alone)["state"] == "COMPLETE"


def test_a_job_that_is_over_is_done_at_once(alone: ExperimentSettings) -> None:
    work(job(alone))
    again = work(job(alone)).events
    assert [event.kind for event in again] == ["done"]
    assert again[0].metrics["epoch"] == 4


def test_one_job_after_another_is_the_same_as_each_alone(
    alone: ExperimentSettings, tmp_path: Path
) -> None:
    pushed = Pushed()
    Store.open(alone.store, create=True)
    worker = Worker(torch.device("cpu"), pushed)
    for trial_id in ("a", "b"):
        worker.do(job(alone, trial_id=trial_id))
    files = [Path(alone.store) / "runs" / name / "best.safetensors" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_loss_that_is_not_finite_makes_the_settings_infeasible_and_the_worker_continues(
    alone: ExperimentSettings,
) -> None:
    wild = with_values(alone, {"optim.lr": 1e30})
    pushed = Pushed()
    Store.open(alone.store, create=True)
    worker = Worker(torch.device("cpu"), pushed)
    worker.do(job(wild))
    worker.do(job(alone, trial_id="t2"))
    assert (pushed.events[0].kind, pushed.events[0].failure_kind) == ("failed", "NAN")
    assert pushed.events[-1].kind == "done"
    fail(job(wild), "NAN", pushed.events[0].failure_text)
    fail(job(alone, trial_id="t2"), "NAN", "too late")
    states = {
        row["trial_id"]: row["state"]
        for row in Store.open(alone.store, create=False).trials().to_pylist()
    }
    assert states == {"t1": "INFEASIBLE", "t2": "COMPLETE"}


def test_an_exception_of_a_users_code_is_one_line_with_its_location(
    alone: ExperimentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("attnfd_ray.runtime.jobs.worker.Trainer", broken)
    event = work(job(alone)).events[-1]
    assert event.failure_kind == "USER_CODE"
    assert event.failure_text is not None
    assert event.failure_text.startswith("ZeroDivisionError: division (test_worker.py:")
    log = Path(alone.store) / "runs" / "t1" / "failure.log"
    assert event.failure_text.endswith(f", on {socket.gethostname()}); traceback: {log}")
    first, _, trace, *_ = lines = log.read_text().splitlines()
    assert first.startswith(f"USER_CODE: t1, attempt 1, on {socket.gethostname()}, ")
    assert trace == "Traceback (most recent call last):"
    assert lines[-2:] == ["ZeroDivisionError: division", "by zero"]
    assert trial_row(alone)["state"] == "RUNNING"
    fail(job(alone), event.failure_kind, event.failure_text)
    row = trial_row(alone)
    assert (row["state"], row["failure_kind"], row["failure_text"]) == (
        "FAILED",
        "USER_CODE",
        event.failure_text,
    )


def test_a_failure_is_reported_if_its_traceback_cannot_be_written(
    alone: ExperimentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("on purpose")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("attnfd_ray.runtime.jobs.worker.Trainer", broken)
    monkeypatch.setattr("attnfd_ray.runtime.jobs.failures.write_atomic", full)
    event = work(job(alone)).events[-1]
    assert event.failure_kind == "USER_CODE"
    assert event.failure_text is not None
    assert event.failure_text.endswith(f"on {socket.gethostname()})")


def test_memory_that_runs_out_makes_the_settings_infeasible_and_keeps_its_traceback(
    alone: ExperimentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nof much text")

    monkeypatch.setattr("torch.optim.SGD.step", out_of_memory)
    event = work(job(alone)).events[-1]
    kind, text = event.failed_with
    assert kind == "OOM"
    assert text.startswith("CUDA out of memory. Tried to allocate 2 GiB (test_worker.py:")
    assert f" in out_of_memory, on {socket.gethostname()}); traceback: " in text
    fail(job(alone), kind, text)
    assert (trial_row(alone)["state"], trial_row(alone)["failure_text"]) == ("INFEASIBLE", text)
    assert "of much text" in (Path(alone.store) / "runs" / "t1" / "failure.log").read_text()


def test_a_val_split_of_which_no_pixel_counts_has_no_score(
    tree: dict[str, Any], settings: Make, tmp_path: Path
) -> None:
    shutil.copytree(tree["data"]["root"], tmp_path / "scenes")
    for mask in (tmp_path / "scenes/VOCdevkit/VOC2012/SegmentationClass").glob("val_*"):
        with Image.open(mask) as image:
            blank = image.point(lambda _: 255)
        blank.save(mask)
    tree |= {"method": {"name": "none"}, "teacher": None}
    tree["data"]["root"] = str(tmp_path / "scenes")
    kind, text = work(job(settings())).events[-1].failed_with
    assert kind == "NO_METRIC"
    assert text.startswith(
        "no pixel of split 'val' of toyscenes has a label that counts, so it has no mIoU; "
    )
    assert "traceback" not in text
    fail(job(settings()), kind, text)
    assert (trial_row(settings())["state"], trial_row(settings())["failure_kind"]) == (
        "FAILED",
        "NO_METRIC",
    )


def test_an_unreadable_image_is_a_data_failure(alone: ExperimentSettings, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    shutil.copytree(alone.data.root, root)
    image = sorted((root / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("*.jpg"))[1]
    image.write_bytes(image.read_bytes()[:100])
    event = work(job(with_values(alone, {"data.root": str(root)}))).events[-1]
    assert (event.kind, event.failure_kind) == ("failed", "DATA")
    assert event.failure_text is not None
    assert event.failure_text.startswith(str(image))


def test_a_teacher_file_of_other_classes_is_an_error_of_one_line(
    tree: dict[str, Any], settings: Make
) -> None:
    from attnfd_ray.models import build_model, save_model

    made = settings()
    file = Path(made.store).parent / "teacher.safetensors"
    network = build_model(made.student, num_classes=4)
    save_model(
        network, file, settings=made.student, num_classes=4, class_names=list("abcd"), extra={}
    )
    tree["teacher"] = {"backbone": "resnet18", "width": 0.125, "checkpoint": str(file)}
    event = work(job(settings(), kind="score_teacher", teacher_file=str(file))).events[-1]
    assert event.kind == "failed"
    assert event.failure_text is not None
    assert event.failure_text.startswith(str(file))
    assert "it was made for 4 classes, not 12" in event.failure_text
    assert "\n" not in event.failure_text


def test_a_store_that_the_worker_does_not_see_is_a_failure_and_is_not_made(
    alone: ExperimentSettings,
) -> None:
    pushed = Pushed()
    Worker(torch.device("cpu"), pushed).do(job(alone))
    assert (pushed.events[0].kind, pushed.events[0].failure_kind) == ("failed", "STORE")
    assert not Path(alone.store).exists()


def test_a_job_whose_driver_is_gone_is_left_as_it_is(alone: ExperimentSettings) -> None:
    def gone(job: Job, event: Event) -> str | None:
        raise GroupMustRestart("the broker process is gone")

    Store.open(alone.store, create=True)
    with pytest.raises(GroupMustRestart):
        Worker(torch.device("cpu"), gone).do(job(alone))
    assert trial_row(alone)["state"] == "RUNNING"


def test_students_learn_from_the_teacher_that_was_trained_for_them(settings: Make) -> None:
    made = settings()
    training = teacher_experiment(made)
    work(job(training, trial_id="teacher", role="teacher"))
    file = Path(made.store) / "runs" / "teacher" / "best.safetensors"
    before = file.read_bytes()
    pushed = work(job(made, teacher_file=str(file)))
    assert [event.kind for event in pushed.events] == ["epoch"] * 4 + ["done"]
    assert set(pushed.events[0].metrics["loss_terms"]) == {"cross_entropy", "attnfd/stage4"}
    pushed_norms = [event.metrics["gradient_norms"] for event in pushed.events[:4]]
    names = {"cross_entropy", "attnfd/stage4", "distillation"}
    assert all(norms.keys() == names for norms in pushed_norms)
    store = Store.open(made.store, create=False)
    stored = [row["gradient_norms"] for row in store.epochs(job(made).trial_id).to_pylist()]
    assert [dict(norms) for norms in stored] == pushed_norms
    assert {row["gradient_norms"] for row in store.epochs("teacher").to_pylist()} == {None}, (
        "it has no teacher"
    )
    assert file.read_bytes() == before
