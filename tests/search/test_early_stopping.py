"""Decisions computed by hand; grace 2, reduction 3: rungs at epochs 2, 6, 18."""

from __future__ import annotations

import random
import re
import statistics

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import BasePruner, SuccessiveHalvingPruner, ThresholdPruner
from optuna.trial import TrialState

from attnfd_ray import registry
from attnfd_ray.config.schema import TuneSettings
from attnfd_ray.search.early_stopping import INDEX, why

EPOCHS = 20


def study_with(name: str, **tune: int) -> optuna.Study:
    pruner: BasePruner = registry.load("early_stopping", name)(
        TuneSettings(grace_epochs=2, **tune), EPOCHS
    )
    return optuna.create_study(direction="maximize", pruner=pruner)


def started(study: optuna.Study) -> optuna.Trial:
    """Ask for a trial, numbered as OptunaStudy does."""
    trial = study.ask()
    trial.set_user_attr(INDEX, trial.number)
    return trial


def reason(study: optuna.Study, trial: optuna.Trial) -> str:
    return why(study, study.get_trials(deepcopy=False)[trial.number])


def stops_at(study: optuna.Study, scores: list[float]) -> int | None:
    """Report the scores of epochs 1, 2, ... and return the epoch of the first stop."""
    trial = started(study)
    for epoch, score in enumerate(scores, start=1):
        trial.report(score, epoch)
        if trial.should_prune():
            return epoch
    return None


def test_the_first_trial_goes_on_and_so_does_each_that_beats_all_before_it() -> None:
    study = study_with("asha")
    assert stops_at(study, [0.1] * EPOCHS) is None
    assert stops_at(study, [0.2] * EPOCHS) is None
    assert stops_at(study, [0.3] * EPOCHS) is None


def test_no_trial_is_stopped_before_the_grace_epochs_whatever_it_reports() -> None:
    study = study_with("asha")
    stops_at(study, [0.5] * EPOCHS)
    assert stops_at(study, [0.0, 0.6, 0.6]) is None
    assert stops_at(study, [0.9, 0.1]) == 2


def test_at_a_rung_one_in_three_goes_on() -> None:
    study = study_with("asha")
    for score in (0.1, 0.2, 0.3, 0.4, 0.5):
        assert stops_at(study, [score, score]) is None
    # Six at the rung: two go on. The sixth is second best, so it does; a seventh (still two of
    # seven) third, and stops.
    assert stops_at(study, [0.45, 0.45]) is None
    assert stops_at(study, [0.44, 0.44]) == 2
    # The ninth makes three of nine, the cut-off falls to the third best, and an equal of it goes
    # on.
    assert stops_at(study, [0.0, 0.0]) == 2
    assert stops_at(study, [0.44, 0.44]) is None


def test_a_trial_past_one_rung_may_be_stopped_at_the_next() -> None:
    study = study_with("asha")
    assert stops_at(study, [0.5] * EPOCHS) is None
    assert stops_at(study, [0.6, 0.6, 0.6, 0.6, 0.6, 0.4]) == 6
    # Between rungs nothing is judged, however bad.
    assert stops_at(study, [0.7, 0.7, 0.0, 0.0, 0.0, 0.7]) is None


def test_a_larger_reduction_factor_lets_fewer_go_on() -> None:
    study = study_with("asha", reduction_factor=4)
    for score in (0.1, 0.2, 0.3):
        assert stops_at(study, [score, score]) is None
    assert stops_at(study, [0.29, 0.29]) == 2


def test_without_early_stopping_the_worst_runs_to_the_end() -> None:
    study = study_with("none")
    stops_at(study, [0.9] * EPOCHS)
    assert stops_at(study, [0.0] * EPOCHS) is None


@pytest.mark.parametrize("seed", range(3))
def test_asha_decides_as_optunas_successive_halving(seed: int) -> None:
    rng, ours = random.Random(seed), study_with("asha")
    theirs = optuna.create_study(
        direction="maximize",
        pruner=SuccessiveHalvingPruner(2, reduction_factor=3, bootstrap_count=0),
    )
    curves = [[round(rng.random(), 2) for _ in range(EPOCHS)] for _ in range(60)]
    stops = [stops_at(ours, curve) for curve in curves]
    assert stops == [stops_at(theirs, curve) for curve in curves]
    assert {2, 6, 18, None} == set(stops)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_what_is_said_of_a_stop_is_what_decided_it(name: str, seed: int) -> None:
    rng, study, num_stops = random.Random(seed), study_with(name), 0
    for _ in range(40):
        trial, seen = started(study), []
        for epoch in range(1, EPOCHS + 1):
            seen.append(round(rng.random(), 4))
            trial.report(seen[-1], epoch)
            if trial.should_prune():
                text = reason(study, trial)
                assert f"epoch {epoch}" in text
                assert name == "median" or f"rung {[2, 6, 18].index(epoch)}" in text
                judged = max(seen) if name == "median" else seen[-1]
                assert f"{judged:.4f}" in text
                assert judged < float(text.rpartition("cut-off ")[2].rstrip(")"))
                study.tell(trial, state=TrialState.PRUNED)
                num_stops += 1
                break
        else:
            study.tell(trial, seen[-1])
    assert num_stops > 10


def test_the_reason_gives_epoch_rung_value_rank_and_cut_off() -> None:
    study = study_with("asha")
    for score in (0.1, 0.2, 0.3, 0.4, 0.5):
        stops_at(study, [score, score])
    trial = started(study)
    trial.report(0.15, 1)
    trial.report(0.15, 2)
    assert trial.should_prune()
    assert (
        reason(study, trial)
        == "0.1500 at epoch 2 is not among the best 2 of 6 at rung 0 (cut-off 0.4000)"
    )


def test_hyperband_gives_each_bracket_its_share_and_stops_within_a_bracket_alone() -> None:
    study, first_stops = study_with("hyperband"), list[int]()
    for k in range(400):
        stop = stops_at(study, [1 - k / 1000] * EPOCHS)  # each worse than all before it
        first_stops.append(stop or 0)
    # Rungs 2, 6, 18: brackets of 3, 2 and 1 rungs get 9, 5 and 3 of 17 trials. The best of each
    # goes on to the end.
    shares = [sum(stop == rung for stop in first_stops) / 400 for rung in (2, 6, 18)]
    assert shares == pytest.approx([9 / 17, 5 / 17, 3 / 17], abs=0.06)
    assert 3 <= first_stops.count(0) <= 9


def test_the_reason_names_the_bracket_of_hyperband() -> None:
    study = study_with("hyperband")
    for k in range(30):
        trial = started(study)
        trial.report(1 - k / 100, 1)
        trial.report(1 - k / 100, 2)
        if trial.should_prune() and k > 20:
            assert re.search(
                r" of \d+ at rung 0 of bracket 0 \(cut-off 0\.\d{4}\)$", reason(study, trial)
            )
            return
    pytest.fail("no trial was stopped")


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_a_search_shorter_than_its_grace_stops_nothing(name: str) -> None:
    pruner = registry.load("early_stopping", name)(TuneSettings(grace_epochs=9), 8)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for k in range(20):
        trial = started(study)
        for epoch in range(1, 9):
            trial.report(1 - k / 100, epoch)
            assert not trial.should_prune()
        study.tell(trial, 1 - k / 100)


def test_median_waits_for_five_complete_trials_and_its_grace_and_then_stops() -> None:
    study = study_with("median")
    for score in (0.1, 0.2, 0.3, 0.4, 0.5):
        trial = started(study)
        for epoch in range(1, EPOCHS + 1):
            trial.report(score, epoch)
            assert not trial.should_prune()
        study.tell(trial, score)
    assert stops_at(study, [0.0, 0.29]) == 2
    assert stops_at(study, [0.0, 0.3, 0.0]) is None  # its best so far counts
    trial = started(study)
    for epoch, score in enumerate((0.1, 0.25), start=1):
        trial.report(score, epoch)
    assert trial.should_prune()
    assert reason(study, trial) == (
        "the best up to epoch 2, 0.2500, is below the median of 5 complete trials there (cut-off "
        "0.3000)"
    )


def test_a_pruner_of_ones_own_need_not_explain_itself() -> None:
    study = optuna.create_study(pruner=ThresholdPruner(lower=0.25), direction="maximize")
    trial = started(study)
    for epoch, score in enumerate((0.5, 0.4, 0.3, 0.2), start=1):
        trial.report(score, epoch)
    assert trial.should_prune()
    assert reason(study, trial) == "0.2000 at epoch 4 does not promise enough"


def test_what_was_stopped_early_teaches_less_than_what_ran_on_whatever_its_value() -> None:
    """Optuna's TPE ranks complete trials by value, and stopped ones after them.

    Stopped trials are ranked by their last epoch, then by value.
    """
    distribution: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
    study = optuna.create_study(direction="maximize")
    for k in range(60):
        epoch, x, value = ((5, 0.9, 0.9), (25, 0.5, 0.5), (50, 0.1, 0.3))[k % 3]
        state = TrialState.COMPLETE if epoch == 50 else TrialState.PRUNED
        params = {"x": x + 0.0005 * k}
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=value,
                params=params,
                distributions=distribution,
                intermediate_values={epoch: value},
            )
        )
    assert drawn_near(study, distribution) == pytest.approx(0.1, abs=0.1)
    # Without the complete ones, those of 25 epochs come before those of 5.
    stopped = optuna.create_study(direction="maximize")
    stopped.add_trials(study.get_trials(states=(TrialState.PRUNED,)))
    assert drawn_near(stopped, distribution) == pytest.approx(0.5, abs=0.1)


def drawn_near(study: optuna.Study, distribution: dict[str, BaseDistribution]) -> float:
    """Return the median of what TPE draws next."""
    found = []
    for seed in range(20):
        study.sampler = registry.load("sampler", "tpe")(seed, distribution)
        trial = study.ask(distribution)
        found.append(float(trial.params["x"]))
        study.tell(trial, state=TrialState.FAIL)
    return statistics.median(found)
