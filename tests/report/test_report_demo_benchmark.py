"""The benchmark of the demonstration counts only gains over fresh seeds."""

import pytest

from attnfd_ray.analysis.summary import summarise
from benchmarks.demo import is_gain, read, table

FRESH = (1_000_001, 1_000_002, 1_000_003)


@pytest.fixture
def demo(write):
    """Return the result of a search with this confirmed gain.

    In the search itself the leader gains 20 points.
    """

    def demo(gain):
        names = ["background", "disc"]
        write(
            "t",
            0.6,
            role="teacher",
            method="none",
            teacher_hash="abc",
            class_names=names,
            best_epoch=1,
        )
        write.epochs("t", [0.6], role="teacher", class_iou=[0.9, 0.3], method="none")
        write("b", 0.2, role="baseline", config_hash="base", class_names=names)
        write(
            "t1",
            0.4,
            config_hash="ours",
            method="dist",
            values={"method": {"name": "dist"}},
            class_names=names,
        )
        for seed in FRESH:
            write(f"b-{seed}", 0.2, role="confirm", config_hash="base", seed=seed)
            write(
                f"t-{seed}",
                0.2 + gain,
                role="confirm",
                config_hash="ours",
                seed=seed,
                method="dist",
                values={"method": {"name": "dist"}},
            )
        return read(summarise(write.store).shown, seed=101, wall_s=250.0)

    return demo


def test_a_demo_is_a_row_and_counts_by_its_gain_over_fresh_seeds(demo):
    row = table([demo(0.05)])
    assert row[2] == (
        "| 101 | 4 min 10 s | 60.00 | 30.00 | 20.00 | dist | 25.00 | +5.00 ± 0.00 | better |"
    )
    assert row[-1] == "the best config gains over fresh seeds in 1 of 1; needed: 4 of 5"


def test_what_only_the_search_gained_does_not_count(demo):
    assert not is_gain(demo(-0.01))
