"""IoU by class name, at the best epoch of each trial."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from attnfd_ray.analysis.records import ClassLine
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.report.text import show
from attnfd_ray.store.rows import EpochRow

NAMES = ["road", "car"]


@pytest.fixture
def scored(write):
    """A teacher, a baseline and a best config whose best epoch is the first of two."""
    for trial_id, role, iou in (
        ("t0", "teacher", 0.9),
        ("t1", "baseline", 0.5),
        ("t2", "trial", 0.7),
    ):
        write(
            trial_id,
            iou,
            role=role,
            teacher_hash="abc",
            class_names=NAMES,
            best_epoch=1,
            test_miou=iou - 0.1,
        )
        for epoch, car in ((1, iou), (2, 0.0)):
            row = {
                "trial_id": trial_id,
                "experiment": "camvid",
                "seed": 1,
                "method": "attnfd",
                "role": role,
            }
            write.store.append_epoch(
                EpochRow(
                    epoch=epoch,
                    epochs_total=120,
                    val_miou=car,
                    class_iou=[None, car],
                    protocol=write.protocol,
                    **row,
                )
            )
    return summarise(write.store)


def test_every_class_has_its_iou_at_the_best_epoch(scored):
    (protocol,) = scored.shown.protocols
    assert protocol.classes == [
        ClassLine(name="road", teacher=None, baseline=None, best=None),
        ClassLine(name="car", teacher=0.9, baseline=0.5, best=0.7),
    ]


def test_classes_and_test_scores_are_printed(scored):
    pipe = io.StringIO()
    show(scored, Console(file=pipe, width=80, color_system=None))
    rows = [line.split() for line in pipe.getvalue().splitlines()]
    assert ["Class", "teacher", "baseline", "best", "config"] in rows
    assert ["car", "90.00", "50.00", "70.00"] in rows
    assert ["road", "-", "-", "-"] in rows
    assert ["baseline", "t1", "50.00", "1/120", "49.75", "40.00"] in rows


def test_rows_without_names_give_no_table_of_classes(search):
    (protocol, _) = summarise(search.store).shown.protocols
    assert protocol.classes == []
