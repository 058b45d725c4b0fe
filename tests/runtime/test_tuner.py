"""Between Tune and the plan, without a cluster."""

from __future__ import annotations

import dataclasses

from ray.tune.utils import flatten_dict

from attnfd_ray.runtime.tuner import nested
from attnfd_ray.train.records import EpochRecord


def test_the_metrics_of_an_epoch_come_through_tune_as_they_were_reported() -> None:
    record = EpochRecord(
        epoch=1, epochs_total=2, train_loss=1.5, loss_terms={"cross_entropy": 1.0, "cirkd/decoder/pixels": 0.5},
        val_miou=0.5, val_pixel_acc=0.5, val_class_acc=0.5, class_iou=[0.5, None], lr=0.1, images_per_s=1.0, wall_s=1.0,
        best_miou=0.5, best_epoch=1, gradient_norms={"cross_entropy": 1.0, "cirkd/decoder/pixels": 2.0},
        gradient_cosines={"cirkd/decoder/pixels": -1.0},
    )  # fmt: skip
    metrics = dataclasses.asdict(record)
    flat = flatten_dict(metrics)
    assert "gradient_norms/cirkd/decoder/pixels" in flat, "this is how Tune hands it on"
    assert nested(flat) == metrics
