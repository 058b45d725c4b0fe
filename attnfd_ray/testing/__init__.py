"""Contract checks for methods, datasets and networks of your own, to be run with pytest.

A check is a base class. In a test file of your own, derive from it and name your class:

    from attnfd_ray.testing.methods import MethodContract

    class TestMyLoss(MethodContract):
        method = "mypackage.losses:MyLoss"

pytest then runs every `test_...` of the base class on it. `testing.datasets` and `testing.networks`
work in the same way. Failed asserts explain themselves; for pytest's details too, put
`pytest.register_assert_rewrite("attnfd_ray.testing")` into your conftest.py.

Imports models, distill, data.datasets, config, registry and errors. It does not import pytest.
"""
