"""What all tests share. This file is imported before torch."""

import os

import pytest

# The result of a sum depends on the number of threads. A run and its repetition in another process
# must have the same number.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put each file on one worker of pytest-xdist, and all tests that start Ray on the same one.

    They come first, because they take longest. Two at a time would share two CPUs.
    """
    for item in items:
        group = "ray" if _starts_ray(item) else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_starts_ray, reverse=True)  # stable


def _starts_ray(item: pytest.Item) -> bool:
    return item.get_closest_marker("ray") is not None
