"""The headline of a report: the gain, over what, and how certain it is."""

import pytest

from attnfd_ray.analysis.summary import summarise
from attnfd_ray.report.headline import config_name, headline

SEEDS = (1_000_001, 1_000_002, 1_000_003)
CONFIG = "attnfd layers=[aspp] loss_weight=2"
VALUES = {"method.layers": ["aspp"], "method.loss_weight": 2.0}


@pytest.fixture
def searched(write):
    write("t", 0.67, role="teacher", method="none", teacher_hash="abc")
    write("b", 0.50, role="baseline", config_hash="base")
    write("t1", 0.60, config_hash="ours", values=VALUES)
    write("t2", 0.55, config_hash="other", values=VALUES | {"method.loss_weight": 9.0})
    return write


def confirm(write, ours, baseline, **others):
    for name, scores, values in (("ours", ours, VALUES), ("base", baseline, {})):
        for seed, score in zip(SEEDS, scores, strict=False):
            write(
                f"c-{name}-{seed}",
                score,
                role="confirm",
                config_hash=name,
                seed=seed,
                values=values,
                **others,
            )


def headline_of(write):
    return headline(summarise(write.store).shown)


def test_a_gain_that_was_not_confirmed_says_how_to(searched):
    assert headline_of(searched) == (
        f"The best config, {CONFIG}, has a gain of +10.00 points of mIoU over the student alone "
        "(baseline). The search itself cannot show how certain that is, since its best was lucky "
        "too: `attnfd-ray confirm FILE` runs both over fresh seeds. The teacher has 67.00 %."
    )


@pytest.mark.parametrize(
    ("ours", "gain", "verdict"),
    [
        (
            [0.56, 0.57, 0.58],
            "+6.00 ± 2.48",
            "The interval is above 0: better than chance explains.",
        ),
        (
            [0.44, 0.45, 0.46],
            "-6.00 ± 2.48",
            "The interval is below 0: the student is better off alone.",
        ),
        ([0.50, 0.51, 0.55], "+1.00 ± 6.57", "The interval contains 0: this may be chance."),
    ],
)
def test_a_confirmed_gain_is_over_fresh_seeds_alone_and_says_how_sure_it_is(
    searched, ours, gain, verdict
):
    confirm(searched, ours, [0.51, 0.51, 0.51])
    mean = sum(ours) / 3
    assert headline_of(searched) == (
        f"Over 3 seeds that the search never used, the student has mIoU {100 * mean:.2f} % with "
        f"{CONFIG} and 51.00 % alone (baseline): {gain} points (95 % interval). {verdict} The "
        "teacher has 67.00 %."
    )


def test_one_fresh_seed_has_no_interval(searched):
    confirm(searched, [0.56], [0.50])
    text = headline_of(searched)
    assert text.startswith(
        "Over 1 seed that the search never used, the student has mIoU 56.00 % with"
    )
    assert "alone (baseline): +6.00 points. One fresh seed is no measure of certainty." in text


def test_what_confirmed_another_config_than_the_best_confirms_nothing(searched):
    confirm(searched, [0.56, 0.57, 0.58], [0.51, 0.51, 0.51])
    searched("t3", 0.70, config_hash="newer", values=VALUES | {"method.loss_weight": 3.0})
    assert "`attnfd-ray confirm FILE`" in headline_of(searched)


def test_without_a_baseline_or_a_best_there_is_nothing_to_say(write):
    write("t1", 0.60, values=VALUES)
    assert headline_of(write) is None
    write("b", 0.50, role="baseline", experiment="alone")
    assert headline(summarise(write.store, experiment="alone").shown) is None


def test_a_run_of_train_gets_no_advice_to_confirm_it(write):
    write("b", 0.50, role="baseline")
    write("r", 0.55, role="run", search_id=None)
    assert (
        headline_of(write)
        == "The best config, attnfd, has a gain of +5.00 points of mIoU over the student alone "
        "(baseline)."
    )


def test_a_searched_method_replaces_the_name_of_the_method():
    values = {"method": {"name": "cwd_feature", "loss_weight": 50.0}, "optim.lr": 0.1}
    assert config_name("cwd_feature", values) == "cwd_feature lr=0.1 loss_weight=50"


def test_of_the_file_s_own_method_the_name_is_enough(searched):
    own = {"method": {"name": "attnfd", "layers": ["aspp"], "kernel": 7}}
    searched("w", 0.65, role="as_written", config_hash="file", values=own)
    assert headline_of(searched).startswith("The best config, attnfd, has a gain of +15.00 points")
    for seed in SEEDS:
        searched(f"w-{seed}", 0.6, role="confirm", config_hash="file", seed=seed, values=own)
        searched(f"b-{seed}", 0.5, role="confirm", config_hash="base", seed=seed)
    assert "the student has mIoU 60.00 % with attnfd and 50.00 % alone" in headline_of(searched)
