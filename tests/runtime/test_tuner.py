"""Between Tune and the plan, without a cluster."""

from __future__ import annotations

import dataclasses

import pytest
from ray.tune.utils import flatten_dict

from attnfd_ray.runtime.jobs import tune_trial
from attnfd_ray.runtime.jobs.messages import Event, Job
from attnfd_ray.runtime.tuner import nested
from attnfd_ray.train.records import EpochRecord


def test_the_metrics_of_an_epoch_come_through_tune_as_they_were_reported() -> None:
    record = EpochRecord(
        epoch=1,
        epochs_total=2,
        train_loss=1.5,
        loss_terms={"cross_entropy": 1.0, "cirkd/decoder/pixels": 0.5},
        val_miou=0.5,
        val_pixel_acc=0.5,
        val_class_acc=0.5,
        class_iou=[0.5, None],
        lr=0.1,
        images_per_s=1.0,
        wall_s=1.0,
        best_miou=0.5,
        best_epoch=1,
        gradient_norms={"cross_entropy": 1.0, "cirkd/decoder/pixels": 2.0},
        gradient_cosines={"cirkd/decoder/pixels": -1.0},
    )
    metrics = dataclasses.asdict(record)
    flat = flatten_dict(metrics)
    assert "gradient_norms/cirkd/decoder/pixels" in flat, "this is what Tune passes on"
    assert nested(flat) == metrics


def epoch(number: int) -> Event:
    return Event(kind="epoch", metrics={"epoch": number})


@pytest.mark.parametrize(
    ("end", "reported"),
    [
        (Event(kind="done", metrics={"epoch": 2}), []),
        (
            Event(kind="done", metrics={"epoch": 2, "student_params": 9}),
            [{"epoch": 2, "student_params": 9, "training_iteration": 2}],
        ),
        (Event.failed("NAN", "no"), [{"failure_kind": "NAN", "failure_text": "no"}]),
    ],
)
def test_a_trial_reports_epochs_and_what_its_end_adds(
    end: Event, reported: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, object]] = []
    monkeypatch.setattr(tune_trial, "events", lambda *_: iter([epoch(1), epoch(2), end]))
    monkeypatch.setattr(tune_trial.tune, "report", reports.append)
    job = Job(kind="train", trial_id="t1", role="trial", settings_json="{}")
    tune_trial._follow(job, None)
    epochs = [{"epoch": number, "training_iteration": number} for number in (1, 2)]
    assert reports == epochs + reported
