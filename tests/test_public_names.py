"""The names that a user imports from `attnfd_ray`, and what importing them costs."""

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import attnfd_ray

PUBLIC = sorted(set(attnfd_ray.__all__) - {"__version__"})
DOCUMENTED = [
    "attnfd_ray.config.method_settings",
    "attnfd_ray.config.spaces",
    "attnfd_ray.errors",
    "attnfd_ray.registry",
    "attnfd_ray.store.store",
]


def test_the_public_names_are_these():
    assert PUBLIC == [
        "LayerwiseMethod",
        "Method",
        "MethodSettings",
        "SegmentationDataset",
        "SegmentationModel",
        "Store",
        "load_student",
    ]
    assert set(dir(attnfd_ray)) >= set(attnfd_ray.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_can_be_imported(name):
    found = getattr(attnfd_ray, name)
    assert found.__name__ == name
    assert found.__doc__


def test_an_unknown_name_is_an_error_as_in_any_module():
    with pytest.raises(AttributeError, match="module 'attnfd_ray' has no attribute 'Stroe'"):
        _ = attnfd_ray.Stroe


def test_type_checkers_see_the_same_modules_as_the_import_on_first_use():
    tree = ast.parse(Path(attnfd_ray.__file__).read_text(encoding="utf-8"))
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0
    ]
    seen = {
        alias.name: node.module
        for node in imports
        for alias in node.names
        if node.module is not None and node.module.startswith("attnfd_ray.")
    }
    assert seen == attnfd_ray._MODULES


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys, attnfd_ray; attnfd_ray.__version__; "
        "print(sorted(name for name in sys.modules if name.startswith('attnfd_ray.')), "
        "sorted({'torch', 'ray', 'pyarrow', 'pydantic', 'optuna'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_examples_in_the_docstrings_are_true(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
