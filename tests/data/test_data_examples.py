"""The examples in the docstrings of the data folder are run."""

import doctest
from importlib import import_module

import pytest

MODULES = (
    "attnfd_ray.data.datasets.base",
    "attnfd_ray.data.files",
    "attnfd_ray.data.generate.toyscenes",
    "attnfd_ray.data.loading.loader",
    "attnfd_ray.data.palette",
)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_print_what_they_show(module: str) -> None:
    result = doctest.testmod(import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
