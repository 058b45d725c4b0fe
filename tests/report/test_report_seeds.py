"""Configs over seeds: means, and gains with the same seed."""

import io
import math

import pytest
from rich.console import Console

from attnfd_ray.analysis.seeds import estimate
from attnfd_ray.analysis.summary import summarise
from attnfd_ray.report.text import show
from attnfd_ray.terms import TrialState

METHODS = {
    "none": [0.50, 0.52, 0.54],
    "kd": [0.53, 0.55, 0.57],
    "attnfd": [0.52, 0.58, 0.54],
}


@pytest.fixture
def compared(write):
    """Return the lines of a grid over methods and seeds, by method."""
    for method, scores in METHODS.items():
        for seed, score in enumerate(scores, start=1):
            values = {"method": {"name": method}, "train.seed": seed}
            write(
                f"{method}{seed}",
                score,
                method=method,
                config_hash=method,
                seed=seed,
                values=values,
            )
    write("base", 0.50, role="baseline", method="attnfd", config_hash="other")
    return summarise(write.store)


def configs(report):
    (protocol,) = report.shown.protocols
    return protocol.configs


def test_every_config_has_its_mean_and_interval_best_first(compared):
    assert [line.method for line in configs(compared)] == ["kd", "attnfd", "none", "attnfd"]
    kd = configs(compared)[0]
    assert kd.best_val_miou.mean == pytest.approx(0.55)
    # t(0.975, 2 degrees of freedom) = 4.3027 in any table; the deviation of 53, 55, 57 is 2
    assert kd.best_val_miou.half_width == pytest.approx(4.3027 * 0.02 / math.sqrt(3), rel=1e-4)
    assert kd.values == {"method": {"name": "kd"}}


def test_a_gain_is_taken_seed_by_seed_from_the_student_alone_with_most_seeds(compared):
    kd, attnfd, none, _ = configs(compared)
    assert kd.gain.mean == pytest.approx(0.03)
    assert kd.gain.half_width == pytest.approx(0.0, abs=1e-12)  # the same gain for every seed
    assert attnfd.gain.mean == pytest.approx((0.02 + 0.06 + 0.0) / 3)
    assert attnfd.gain.num == 3
    assert none.gain is None
    assert none.is_baseline


def test_a_searchs_own_baseline_and_the_method_none_are_one_config_over_all_seeds(write):
    write("base", 0.50, role="baseline", config_hash="alone")
    for seed, score in enumerate(METHODS["none"], start=1):
        values = {"method": {"name": "none"}, "train.seed": seed}
        write(f"none{seed}", score, method="none", config_hash="alone", seed=seed, values=values)
        write(
            f"kd{seed}",
            score - 0.01,
            method="kd",
            config_hash="kd",
            seed=seed,
            values={"train.seed": seed},
        )
    report = summarise(write.store)
    none, kd = configs(report)
    assert (none.method, none.is_baseline, none.gain) == ("none", True, None)
    assert (none.best_val_miou.num, none.best_val_miou.mean) == (3, pytest.approx(0.52))
    assert (kd.gain.num, kd.gain.mean) == (3, pytest.approx(-0.01))
    (protocol,) = report.shown.protocols
    assert (protocol.baseline.trial_id, protocol.best.trial_id) == (
        "base",
        "kd3",
    )  # none3 did better, but it is the same config
    assert (protocol.gain.num_seeds_best, protocol.gain.num_seeds_baseline) == (3, 3)
    assert protocol.gain.best_epoch_miou == pytest.approx(-0.01)
    assert "The best of 3 was chosen" in protocol.gain.note
    console = Console(width=100, record=True, file=io.StringIO())
    show(report, console)
    assert console.export_text().count("none (baseline)") == 1


def test_a_weight_of_nothing_that_was_searched_is_the_baseline_and_not_the_best(write):
    write("base", 0.50, role="baseline", config_hash="alone")
    write("zero", 0.51, config_hash="alone", values={"method.loss_weight": 0.0})
    write("two", 0.49, config_hash="two", values={"method.loss_weight": 2.0})
    (protocol,) = summarise(write.store).shown.protocols
    assert (protocol.baseline.trial_id, protocol.best.trial_id) == ("base", "two")


def test_a_config_is_named_by_its_shortest_words(write):
    write(
        "written",
        0.6,
        config_hash="a",
        values={"method": {"name": "attnfd", "norm": "image"}, "train.seed": 1},
    )
    write(
        "chosen",
        0.5,
        config_hash="a",
        seed=2,
        values={"method": {"name": "attnfd"}, "train.seed": 2},
    )
    (line,) = configs(summarise(write.store))
    assert line.values == {"method": {"name": "attnfd"}}


def test_of_equally_many_seeds_the_searchs_own_baseline_counts(write):
    write("base", 0.60, role="baseline", config_hash="base")
    write("none1", 0.55, method="none", config_hash="none")
    write("kd1", 0.61, method="kd", config_hash="kd")
    write("kd2", 0.63, method="kd", config_hash="kd", seed=2)
    kd = configs(summarise(write.store))[0]
    assert (kd.gain.mean, kd.gain.num) == (pytest.approx(0.01), 1)


def test_one_seed_has_no_interval():
    assert estimate([0.5]).half_width is None


def test_a_search_with_one_seed_each_has_no_such_table(write):
    write("b", 0.5, role="baseline")
    write("t", 0.6)
    assert configs(summarise(write.store)) == []


def test_the_table_names_methods_and_says_how_sure(compared):
    console = Console(width=100, record=True, file=io.StringIO())
    show(compared, console)
    text = console.export_text()
    assert "kd" in text
    assert "55.00 ± 4.97" in text
    assert "+3.00 ± 0.00" in text
    assert "none (baseline)" in text


def test_a_config_with_several_seeds_does_not_win_by_its_luckiest(write):
    write("base", 0.50, role="baseline")
    write("lucky1", 0.66, config_hash="lucky")
    write("lucky2", 0.56, config_hash="lucky", seed=2)
    write("lucky2-again", 0.50, config_hash="lucky", seed=2)  # a seed counts once, by its best
    write("steady1", 0.61, config_hash="steady")
    write("steady2", 0.62, config_hash="steady", seed=2)
    (protocol,) = summarise(write.store).shown.protocols
    ranked = ["steady2", "steady1", "lucky1", "lucky2", "lucky2-again", "base"]
    assert [line.trial_id for line in protocol.ranked] == ranked
    assert [line.rank for line in protocol.ranked] == [1, 2, 3, 4, 5, 6]
    assert protocol.best.trial_id == "steady2"
    assert protocol.gain.best_epoch_miou == pytest.approx(0.615 - 0.50)


def test_seeds_that_diverged_are_said_beside_the_mean_of_those_that_survived(write):
    lost = {"config_hash": "lucky", "state": TrialState.INFEASIBLE, "failure_kind": "NAN"}
    write("lucky1", 0.66, config_hash="lucky")
    write("lucky2", 0.30, seed=2, epochs_done=9, **{**lost, "failure_kind": "OOM"})
    write("lucky3", seed=3, protocol=write.protocol, role="confirm", **lost)
    write("steady1", 0.62, config_hash="steady")
    sentence = "Of the best config's 3 seeds 2 ended in NAN and OOM: its mean leaves them out."
    console = Console(width=200, record=True, file=io.StringIO())
    show(summarise(write.store), console)
    assert f"There is no finished baseline to compare with. {sentence}" in console.export_text()
    write("base", 0.50, role="baseline", config_hash="b")
    write("base2", 0.40, role="baseline_trial", seed=2, **{**lost, "config_hash": "b"})
    (protocol,) = summarise(write.store).shown.protocols
    assert sentence in protocol.gain.note
    assert "Of the baseline's 2 seeds 1 ended in NAN: its" in protocol.gain.note
    write("lucky2-again", 0.60, config_hash="lucky", seed=2)
    write("lucky3-again", 0.61, config_hash="lucky", seed=3)
    assert "Of the best" not in summarise(write.store).shown.protocols[0].gain.note


def test_a_trial_says_its_seed_where_its_config_has_several(write):
    write("base", 0.50, role="baseline")
    write("one", 0.66, config_hash="one", values={"optim.lr": 0.1}, seed=7)
    write("two1", 0.56, config_hash="two", values={"optim.lr": 0.2}, seed=7)
    write(
        "two2",
        0.41,
        config_hash="two",
        values={"optim.lr": 0.2},
        seed=8,
        state="PRUNED",
        epochs_done=10,
    )
    console = Console(width=100, record=True, file=io.StringIO())
    show(summarise(write.store), console)
    lines = console.export_text().partition("Ranking")[2].splitlines()
    assert [line.split("lr=")[1].strip() for line in lines if "lr=" in line] == [
        "0.1",
        "0.2 seed=7",
        "0.2 seed=8",
    ]


def test_seeds_that_were_stopped_early_are_said_too(write):
    write("base", 0.50, role="baseline", config_hash="b")
    write("kept1", 0.66, config_hash="c")
    write("stopped", 0.20, config_hash="c", seed=2, epochs_done=9, state=TrialState.PRUNED)
    lost = {"state": TrialState.INFEASIBLE, "failure_kind": "NAN", "protocol": write.protocol}
    write("lost", config_hash="c", seed=3, **lost)
    (protocol,) = summarise(write.store).shown.protocols
    assert (
        "Of the best config's 3 seeds 1 ended in NAN, 1 stopped early: its mean"
        in protocol.gain.note
    )


def test_a_gain_over_a_smaller_student_is_said_to_be_one_of_size_too(write):
    write("base", 0.50, role="baseline", student_params=262_948)
    write("wide", 0.60, config_hash="wide", student_params=1_045_000)
    (protocol,) = summarise(write.store).shown.protocols
    assert protocol.gain.note.endswith(
        "Different students: 1.04 M parameters against the baseline's 0.263 M, so part of the gain "
        "may come from size."
    )
