"""The columns of the two tables, with units in the names. Imports nothing of the package.

mIoU and accuracies are fractions 0..1. A released column keeps its name, type and meaning, so that
parts written by any version stay readable. Readers see null where an old part lacks a column.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

_INT = pa.int64()
_FLOAT = pa.float64()
_TEXT = pa.string()

_BOTH = [
    ("schema_version", _INT),
    ("experiment", _TEXT),
    ("search_id", _TEXT),  # null for a run of `train`
    ("trial_id", _TEXT),
    ("attempt", _INT),  # counted from 1; a later one supersedes
    ("seed", _INT),
    ("method", _TEXT),
    ("role", _TEXT),  # teacher | baseline | as_written | baseline_trial | trial | run | confirm
    ("time_utc", pa.timestamp("us", tz="UTC")),  # when the row was written
]

EPOCHS = pa.schema(
    [
        *_BOTH,
        ("epoch", _INT),  # counted from 1
        ("epochs_total", _INT),
        ("train_loss", _FLOAT),
        ("loss_terms", pa.map_(_TEXT, _FLOAT)),
        ("val_miou", _FLOAT),
        ("val_pixel_acc", _FLOAT),
        ("val_class_acc", _FLOAT),
        ("class_iou", pa.list_(_FLOAT)),  # null: the class is in neither labels nor predictions
        ("protocol", _TEXT),  # how mIoU was measured: split, resolution, flips
        ("lr", _FLOAT),
        ("images_per_s", _FLOAT),
        ("wall_s", _FLOAT),  # of this epoch
        # loss term -> L2 norm of its gradient with respect to the student's parameters, of the
        # first accumulated part of a batch; null: not measured
        ("gradient_norms", pa.map_(_TEXT, _FLOAT)),
        # loss term -> cosine with the gradient of cross_entropy
        ("gradient_cosines", pa.map_(_TEXT, _FLOAT)),
    ]
)

TRIALS = pa.schema(
    [
        *_BOTH,
        ("state", _TEXT),  # RUNNING | COMPLETE | PRUNED | FAILED | INFEASIBLE
        ("stop_reason", _TEXT),  # null unless PRUNED
        ("failure_kind", _TEXT),
        ("failure_text", _TEXT),
        ("config_json", _TEXT),  # all settings of the experiment, with this trial's values
        ("config_hash", _TEXT),  # shared by trials that differ only in the seed
        ("searched_json", _TEXT),  # dotted path -> value
        ("best_val_miou", _FLOAT),
        ("best_epoch", _INT),
        ("last_val_miou", _FLOAT),
        # with the weights of the best epoch, once, at the end; null without a test split
        ("test_miou", _FLOAT),
        ("test_pixel_acc", _FLOAT),
        ("test_class_acc", _FLOAT),
        ("test_class_iou", pa.list_(_FLOAT)),
        ("test_protocol", _TEXT),
        ("epochs_done", _INT),
        ("epochs_total", _INT),
        ("protocol", _TEXT),
        ("student_params", _INT),
        # median forward pass of the student with one image; null unless the search optimises it
        ("latency_ms", _FLOAT),
        # size, precision, device and threads; latencies of different protocols are never compared
        ("latency_protocol", _TEXT),
        ("teacher_hash", _TEXT),  # of the teacher of a student; in a teacher's row its own
        ("data_hash", _TEXT),
        ("class_names", pa.list_(_TEXT)),  # in the order of class_iou
        ("checkpoint", _TEXT),  # relative to the store if inside it
        ("git_commit", _TEXT),
        ("versions", pa.map_(_TEXT, _TEXT)),
        ("host", _TEXT),
        ("device", _TEXT),
        ("wall_s", _FLOAT),  # of all attempts together
        ("peak_mem_mib", _FLOAT),
    ]
)
