import dataclasses
from datetime import datetime

import pytest

from attnfd_ray.store.rows import EpochRow, TrialRow
from attnfd_ray.store.schema import EPOCHS, TRIALS
from attnfd_ray.terms import TrialState

# The public interface: adding a name here is fine, changing one breaks the queries of users.
BOTH = "schema_version experiment search_id trial_id attempt seed method role time_utc"
EPOCH_COLUMNS = (
    f"{BOTH} epoch epochs_total train_loss loss_terms val_miou val_pixel_acc val_class_acc "
    "class_iou protocol lr images_per_s wall_s gradient_norms gradient_cosines"
)
TRIAL_COLUMNS = (
    f"{BOTH} state stop_reason failure_kind failure_text config_json config_hash searched_json "
    "best_val_miou best_epoch last_val_miou test_miou test_pixel_acc test_class_acc "
    "test_class_iou test_protocol epochs_done epochs_total protocol student_params latency_ms "
    "latency_protocol teacher_hash data_hash class_names checkpoint git_commit versions host "
    "device wall_s peak_mem_mib"
)


def test_the_columns_are_the_documented_ones():
    assert EPOCHS.names == EPOCH_COLUMNS.split()
    assert TRIALS.names == TRIAL_COLUMNS.split()


@pytest.mark.parametrize(("row", "schema"), [(EpochRow, EPOCHS), (TrialRow, TRIALS)])
def test_a_row_has_a_field_for_each_column(row, schema):
    assert {field.name for field in dataclasses.fields(row)} == set(schema.names)


def test_a_percentage_is_refused_where_a_fraction_belongs(epoch_row, trial_row):
    with pytest.raises(AssertionError, match=r"56\.7 is not a fraction"):
        epoch_row(val_miou=56.7)
    with pytest.raises(AssertionError, match="is not a fraction"):
        trial_row(best_val_miou=56.7)


def test_the_ends_of_a_fraction_and_nan_are_taken(epoch_row):
    for value in (0.0, 1.0, float("nan"), None):
        epoch_row(val_miou=value, class_iou=[value])


@pytest.mark.parametrize("wrong", [{"role": "pupil"}, {"attempt": 0}, {"epoch": 0}, {"epoch": 121}])
def test_a_row_that_makes_no_sense_is_refused(epoch_row, wrong):
    with pytest.raises(AssertionError):
        epoch_row(**wrong)


def test_a_time_without_a_zone_is_refused(epoch_row):
    with pytest.raises(AssertionError, match="time zone"):
        epoch_row(time_utc=datetime(2026, 3, 1))


def test_only_a_pruned_trial_has_a_stop_reason(trial_row):
    trial_row(TrialState.PRUNED, stop_reason="asha: rung 10")
    with pytest.raises(AssertionError):
        trial_row(TrialState.COMPLETE, stop_reason="asha: rung 10")
