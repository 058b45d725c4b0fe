"""Decisions worked out by hand; grace 2, reduction 3: rungs at epochs 2, 6, 18."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.pruners import BasePruner

from attnfd_ray import registry
from attnfd_ray.config.schema import TuneSettings
from attnfd_ray.search.early_stopping import why

EPOCHS = 20


def study_with(name: str, **tune: int) -> optuna.Study:
    pruner: BasePruner = registry.load("early_stopping", name)(TuneSettings(grace_epochs=2, **tune), EPOCHS)
    return optuna.create_study(direction="maximize", pruner=pruner)


def stops_at(study: optuna.Study, scores: list[float]) -> int | None:
    """Report the scores of epochs 1, 2, ... and return the epoch of the first stop."""
    trial = study.ask()
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
    # Six at the rung: two go on. The sixth is second best, so it does; a seventh (still two of seven) third, and stops.
    assert stops_at(study, [0.45, 0.45]) is None
    assert stops_at(study, [0.44, 0.44]) == 2
    # The ninth makes three of nine, the cut-off falls to the third best, and an equal of it goes on.
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
def test_what_is_said_of_a_stop_is_what_decided_it(seed: int) -> None:
    rng, study, num_stops = random.Random(seed), study_with("asha"), 0
    for _ in range(25):
        trial = study.ask()
        for epoch in range(1, EPOCHS + 1):
            value = round(rng.random(), 4)
            trial.report(value, epoch)
            if trial.should_prune():
                trials = study.get_trials(deepcopy=False)
                text = why(trials[trial.number], trials, epoch=epoch, value=value, reduction_factor=3)
                assert f"at epoch {epoch}" in text
                assert f"rung {[2, 6, 18].index(epoch)}" in text
                assert value < float(text.rpartition("cut-off ")[2].rstrip(")"))
                num_stops += 1
                break
    assert num_stops > 10


def test_the_reason_gives_epoch_rung_value_rank_and_cut_off() -> None:
    study = study_with("asha")
    for score in (0.1, 0.2, 0.3, 0.4, 0.5):
        stops_at(study, [score, score])
    trial = study.ask()
    trial.report(0.15, 2)
    assert trial.should_prune()
    trials = study.get_trials()
    text = why(trials[-1], trials, epoch=2, value=0.15, reduction_factor=3)
    assert text == "0.1500 at epoch 2 is not among the best 2 of 6 at rung 0 (cut-off 0.4000)"
