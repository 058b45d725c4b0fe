import math

import pytest

from attnfd_ray.analysis.records import from_json, to_json
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.errors import StoreError
from attnfd_ray.terms import TrialState


def only_protocol(store):
    [report] = summarise(store).shown.protocols
    return report


def test_everything_that_became_of_a_search_is_in_the_report(search):
    shown = summarise(search.store).shown
    scored, unscored = shown.protocols
    assert scored.protocol == search.protocol
    assert (scored.teacher.trial_id, scored.baseline.trial_id, scored.best.trial_id) == (
        "t0",
        "t1",
        "t3",
    )
    assert [(line.rank, line.trial_id) for line in scored.ranked] == [
        (1, "t3"),
        (2, "r1"),
        (3, "t2"),
        (4, "t1"),
        (5, "t4"),
    ]
    assert [(line.trial_id, line.epochs_done, line.rank) for line in scored.others] == [
        ("t5", 10, None),
        ("t9", 3, None),
    ]
    assert unscored.protocol is None
    assert [line.trial_id for line in unscored.others] == ["t6", "t7", "t8"]
    assert [(group.kind, group.num_trials, group.first_trial_id) for group in shown.failures] == [
        ("out_of_memory", 2, "t6"),
        ("connector", 1, "t8"),
    ]
    assert sum(shown.num_trials.values()) == 11
    assert shown.methods == ["attnfd"]


def test_the_cost_counts_every_trial(search):
    cost = summarise(search.store).shown.cost
    assert cost.wall_s == 7 * 3723.0 + 3 * 30.0  # a running trial's own epochs count
    assert cost.images_per_s_median == 102.0
    assert cost.peak_mem_mib == 9121.4


def test_a_report_survives_json(search):
    report = summarise(search.store)
    assert from_json(to_json(report)) == report


def test_nan_is_no_score_and_keeps_json_valid(write):
    write("t1", 0.5, last_val_miou=math.nan)
    write("t2", 0.5, best_val_miou=math.nan, last_val_miou=math.nan, values={"optim.lr": 1.0})
    report = summarise(write.store)
    assert "NaN" not in to_json(report)
    [protocol] = report.shown.protocols
    assert [line.trial_id for line in protocol.ranked] == ["t1"]


def test_an_empty_store_has_nothing_to_show(write):
    report = summarise(write.store)
    assert (report.shown, report.others) == (None, [])
    assert from_json(to_json(report)) == report


def test_different_protocols_are_never_ranked_together(write):
    write("b1", 0.5, role="baseline")
    write("t1", 0.6)
    write("t2", 0.7, protocol="val 360x480, flips")
    native, flips = summarise(write.store).shown.protocols
    assert [line.trial_id for line in native.ranked] == ["t1", "b1"]
    assert [line.trial_id for line in flips.ranked] == ["t2"]
    assert (flips.baseline, flips.gain) == (None, None)
    assert (
        summarise(write.store).shown.best_trial_id == "t1"
    )  # of the protocol with most ranked trials


def test_equals_are_ranked_by_size_and_then_by_name(write):
    write("t3", 0.6, student_params=10)
    write("t2", 0.6, student_params=10)
    write("t1", 0.6, student_params=11)
    write("t0", 0.6, student_params=None)
    assert [line.trial_id for line in only_protocol(write.store).ranked] == ["t2", "t3", "t1", "t0"]


@pytest.mark.parametrize(
    "short", [{"epochs_done": 119}, {"state": TrialState.PRUNED}, {"state": TrialState.RUNNING}]
)
def test_only_a_full_budget_makes_a_best_config(write, short):
    write("t1", 0.5)
    write("t2", 0.9, **short)
    report = only_protocol(write.store)
    assert report.best.trial_id == "t1"
    assert [line.trial_id for line in report.others] == ["t2"]


def test_one_seed_each_is_said_to_prove_nothing(write):
    write("b1", 0.5, role="baseline")
    write("t1", 0.51)
    gain = only_protocol(write.store).gain
    assert (gain.num_seeds_best, gain.num_seeds_baseline) == (1, 1)
    assert gain.note == "1 seed each: not a measure of certainty."
    assert gain.best_epoch_miou == pytest.approx(0.01)


def test_several_seeds_are_compared_by_their_means(write):
    for seed, (base, best) in enumerate([(0.50, 0.60), (0.52, 0.56), (0.54, 0.58)]):
        write(f"b{seed}", base, role="baseline", config_hash="b", seed=seed)
        write(f"t{seed}", best, config_hash="t", seed=seed)
    write("t2-again", 0.57, config_hash="t", seed=2)  # a seed counts once
    gain = only_protocol(write.store).gain
    assert gain.best_epoch_miou == pytest.approx(0.58 - 0.52)
    assert gain.last_epoch_miou == pytest.approx(0.58 - 0.52)
    assert gain.note.startswith(
        "Means over 3 seeds of the best config and 3 seeds of the baseline."
    )


def test_a_baseline_that_wins_is_not_hidden(write):
    write("b1", 0.6, role="baseline")
    write("t1", 0.5)
    report = only_protocol(write.store)
    assert (report.best.trial_id, report.best.rank) == ("t1", 2)
    assert report.gain.best_epoch_miou == pytest.approx(-0.1)


def test_different_budgets_are_noted(write):
    write("b1", 0.5, role="baseline", epochs_done=60, epochs_total=60)
    write("t1", 0.6)
    assert only_protocol(write.store).gain.note.endswith(
        "Different budgets: 120 epochs against the baseline's 60."
    )


def test_a_trial_that_never_ended_is_read_from_its_epochs(write):
    write("t1", state=TrialState.RUNNING)
    write.epochs("t1", [0.2, 0.4, 0.4, math.nan])
    [line] = only_protocol(write.store).others
    assert (line.best_val_miou, line.best_epoch, line.last_val_miou) == (0.4, 2, None)
    assert (line.epochs_done, line.epochs_total, line.wall_s) == (4, 120, 120.0)


def test_the_latest_experiment_is_shown_and_the_others_named(search):
    search("x1", 0.3, experiment="older", time_utc=search.noon)
    search("y1", 0.3, experiment="newer")
    report = summarise(search.store)
    assert report.shown.experiment == "newer"
    assert [line.experiment for line in report.others] == ["camvid", "older"]
    assert summarise(search.store, experiment="older").shown.experiment == "older"


def test_an_experiment_that_is_not_there_names_those_that_are(search):
    with pytest.raises(StoreError, match=r"results: no experiment 'voc'; there is: camvid"):
        summarise(search.store, experiment="voc")


def test_a_teacher_trained_for_another_experiment_is_found_by_its_hash(search):
    search("y1", 0.5, experiment="second", teacher_hash="abc")
    search("z1", 0.5, experiment="third", teacher_hash="other")
    teachers = {
        name: summarise(search.store, experiment=name).shown.protocols[0].teacher
        for name in ("second", "third")
    }
    assert teachers["second"].trial_id == "t0"
    assert teachers["third"] is None
