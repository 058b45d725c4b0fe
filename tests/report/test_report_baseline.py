"""A gain over a baseline that was tuned too."""

import pytest

from attnfd_ray.analysis.confirmation import leaders
from attnfd_ray.analysis.seeds import config_of
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.analysis.trials import TRIAL_COLUMNS, with_epochs
from attnfd_ray.errors import StoreError
from attnfd_ray.report.best_config import write_best_config
from attnfd_ray.terms import TrialState


def tune(write, trial_id, miou, lr, **given):
    write(trial_id, miou, role="baseline_trial", values={"optim.lr": lr}, **given)


@pytest.fixture
def tuned(write):
    """A search whose best baseline is its second trial.

    The first is no better, and a third was stopped early.
    """
    write("s-0000", 0.50, role="baseline", config_hash="base")
    write("s-0001", 0.55, role="as_written", config_hash="written")
    tune(write, "s-b0001", 0.50, 0.1)
    tune(write, "s-b0002", 0.58, 0.2)
    tune(write, "s-b0003", 0.99, 0.3, state=TrialState.PRUNED, epochs_done=10)
    write("s-0002", 0.60, values={"method.loss_weight": 2.0}, config_hash="good")
    write("s-0003", 0.99, state=TrialState.PRUNED, epochs_done=10)
    return write


def protocol_of(write):
    (protocol,) = summarise(write.store).shown.protocols
    return protocol


def rows(write):
    return [with_epochs(row, []) for row in write.store.trials(columns=TRIAL_COLUMNS).to_pylist()]


def test_the_gain_is_over_the_best_baseline_that_had_its_full_budget(tuned):
    protocol = protocol_of(tuned)
    assert (protocol.baseline.trial_id, protocol.best.trial_id) == ("s-b0002", "s-0002")
    assert protocol.gain.best_epoch_miou == pytest.approx(0.02)


def test_the_note_says_what_each_side_had(tuned):
    assert protocol_of(tuned).gain.note == (
        "1 seed each: not a measure of certainty. Both were chosen on the images they are scored "
        "on, which flatters them: the best of 3 trials (2 to their end), and the baseline tuned "
        "over 4 (3)."
    )


def test_one_that_still_runs_counts_only_when_it_has_ended(tuned):
    tune(tuned, "s-b0004", None, 0.4, state=TrialState.RUNNING, protocol=tuned.protocol)
    assert "the baseline tuned over 4 (3)." in protocol_of(tuned).gain.note


def test_the_note_says_that_a_baseline_is_not_tuned(write):
    write("s-0000", 0.50, role="baseline")
    write("s-0001", 0.55, role="as_written")
    write("s-0002", 0.56)
    assert protocol_of(write).gain.note.endswith("which flatters it; the baseline is not tuned.")


def test_where_baselines_lead_none_of_them_is_the_best_config(tuned, tmp_path):
    tune(tuned, "s-b0005", 0.9, 0.5)
    protocol = protocol_of(tuned)
    assert (protocol.baseline.trial_id, protocol.best.trial_id) == ("s-b0005", "s-0002")
    assert [line.trial_id for line in protocol.ranked[:2]] == ["s-b0005", "s-0002"]
    assert (
        write_best_config(tuned.store, summarise(tuned.store), tmp_path / "best.yaml") == "s-0002"
    )


def test_without_any_other_there_is_no_best_config(write, tmp_path):
    write("s-0000", 0.5, role="baseline", config_hash="base")
    tune(write, "s-b0001", 0.6, 0.1)
    assert summarise(write.store).shown.best_trial_id is None
    with pytest.raises(StoreError, match="no best config yet"):
        write_best_config(write.store, summarise(write.store), tmp_path / "best.yaml")


def test_over_seeds_gains_are_over_the_best_baseline_and_not_the_one_with_most_seeds(tuned):
    tuned("s-0004", 0.62, values={"method.loss_weight": 2.0}, config_hash="good", seed=2)
    tune(tuned, "s-b0004", 0.50, 0.1, config_hash="s-b0001", seed=2)
    good, best, *_ = protocol_of(tuned).configs
    assert (good.values, good.gain.num, good.gain.mean) == (
        {"method.loss_weight": 2.0},
        1,
        pytest.approx(0.02),
    )
    assert (best.values, best.is_baseline, best.gain) == ({"optim.lr": 0.2}, True, None)
    assert sum(line.is_baseline for line in protocol_of(tuned).configs) == 3


def test_a_baseline_with_several_seeds_does_not_win_by_its_luckiest(tuned):
    tune(tuned, "s-b0004", 0.40, 0.2, config_hash="s-b0002", seed=2)
    tune(tuned, "s-b0005", 0.52, 0.3, config_hash="steady")
    assert config_of(protocol_of(tuned).baseline) == "steady"


# ---- leaders run again


def confirm(write, config, scores, values):
    for seed, score in enumerate(scores, start=1_000_001):
        write(
            f"c-{config}-{seed}",
            score,
            role="confirm",
            config_hash=config,
            seed=seed,
            values=values,
        )


def test_the_best_baseline_is_run_again_and_no_other_baseline_leads(tuned):
    tune(tuned, "s-b0005", 0.57, 0.5)
    assert [line.trial_id for line in leaders(rows(tuned), search_id="s1", top=9)] == [
        "s-b0002",
        "s-0002",
        "s-0001",
    ]


def test_leaders_are_compared_with_the_best_baseline(tuned):
    confirm(tuned, "s-b0002", [0.56, 0.58, 0.57], {"optim.lr": 0.2})
    confirm(tuned, "good", [0.561, 0.581, 0.571], {"method.loss_weight": 2.0})
    (found,) = summarise(tuned.store).shown.confirmations
    good, alone = found.lines
    assert (found.num_leaders, found.num_tried) == (1, 3)
    assert (good.gain.mean, good.is_baseline) == (pytest.approx(0.001), False)
    assert (alone.values, alone.is_baseline, alone.gain) == ({"optim.lr": 0.2}, True, None)


def test_a_better_baseline_found_later_leaves_what_was_confirmed_before(tuned):
    confirm(tuned, "s-b0002", [0.56, 0.58, 0.57], {"optim.lr": 0.2})
    confirm(tuned, "good", [0.57, 0.59, 0.58], {"method.loss_weight": 2.0})
    tune(tuned, "s-b0005", 0.59, 0.5)
    (found,) = summarise(tuned.store).shown.confirmations
    assert (found.num_leaders, found.lines[0].gain.mean) == (1, pytest.approx(0.01))
    confirm(tuned, "s-b0005", [0.60, 0.60, 0.60], {"optim.lr": 0.5})
    (found,) = summarise(tuned.store).shown.confirmations
    good = next(line for line in found.lines if not line.is_baseline)
    assert (found.num_leaders, good.gain.mean) == (1, pytest.approx(-0.02))
