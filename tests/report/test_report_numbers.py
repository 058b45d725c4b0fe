import doctest
from types import ModuleType

import pytest

from attnfd_ray.analysis import numbers, seeds
from attnfd_ray.report import headline


@pytest.mark.parametrize("module", [numbers, seeds, headline])
def test_the_examples_of_docstrings_are_right(module: ModuleType) -> None:
    tried = doctest.testmod(module)
    assert tried.attempted > 0
    assert tried.failed == 0


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.0, "0.00"), (1.0, "100.00"), (0.60333, "60.33"), (0.6, "60.00"), (None, "-")],
)
def test_percent(fraction, text):
    assert numbers.percent(fraction) == text


@pytest.mark.parametrize(
    ("difference", "text"), [(0.0233, "+2.33"), (-0.01, "-1.00"), (0.0, "+0.00"), (None, "-")]
)
def test_points(difference, text):
    assert numbers.points(difference) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (185.0, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (97_800.0, "27 h 10 min"),
    ],
)
def test_duration(seconds, text):
    assert numbers.duration(seconds) == text


def test_paths_are_shortened_only_where_they_stay_different():
    values = {
        "method.layers": ["stage4", "aspp"],
        "optim.lr": 0.00721034,
        "teacher.width": 1,
        "student.width": 0.5,
    }
    assert (
        numbers.assignments(values)
        == "layers=[stage4, aspp] lr=0.00721 teacher.width=1 student.width=0.5"
    )
    assert numbers.assignments({}) == ""
