"""The examples in docstrings run and give the result that they show."""

import doctest
import importlib

import pytest

# modules whose public names are called from users' own code; each has at least one example
MODULES = [
    "attnfd_ray.distill.batch_sums",
    "attnfd_ray.distill.cbam",
    "attnfd_ray.distill.class_queue",
    "attnfd_ray.distill.features",
    "attnfd_ray.distill.layerwise",
    "attnfd_ray.distill.method",
    "attnfd_ray.distill.normalised",
    "attnfd_ray.distill.teacher",
    "attnfd_ray.models",
    "attnfd_ray.models.base",
    "attnfd_ray.models.files",
    "attnfd_ray.models.taps",
]


@pytest.mark.parametrize("name", MODULES)
def test_every_example_gives_the_result_that_it_shows(name: str) -> None:
    tried = doctest.testmod(importlib.import_module(name))
    assert tried.attempted > 0
    assert tried.failed == 0
