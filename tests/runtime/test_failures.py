"""A failure is reported with its kind, the location in the user's own code and the host."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from types import ModuleType

import pytest
import torch

from attnfd_ray.errors import ConfigError, DataError, Diverged, NoMetric, RunFailed, StoreError
from attnfd_ray.runtime.jobs.failures import describe

THEIRS = """
import json
import torch


def deep_in_a_library():
    json.loads("{")


def deep_in_torch():
    torch.zeros(2) + torch.zeros(3)


def too_much_on_a_cpu():
    torch.empty(2**50)


def too_much_for_python():
    bytearray(2**60)


def silent():
    raise ValueError
"""


@pytest.fixture
def theirs(tmp_path: Path) -> ModuleType:
    file = tmp_path / "theirs.py"
    file.write_text(THEIRS, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("theirs", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "starts", "line"),
    [
        ("deep_in_a_library", "JSONDecodeError: Expecting property name", 7),
        ("deep_in_torch", "RuntimeError: The size of tensor a (2) must match", 11),
        ("silent", "ValueError: ", 23),
    ],
)
def test_the_location_is_in_the_users_code_and_not_in_a_library(
    theirs: ModuleType, name: str, starts: str, line: int
) -> None:
    with pytest.raises(Exception) as caught:
        getattr(theirs, name)()
    # pytest's own call is user code too, but further out
    kind, text = describe(caught.value)
    assert kind == "USER_CODE"
    assert text.startswith(starts)
    assert text.endswith(f" (theirs.py:{line} in {name}, on {socket.gethostname()})")


@pytest.mark.parametrize(
    ("name", "part", "line"),
    [("too_much_on_a_cpu", "can't allocate memory", 15), ("too_much_for_python", "", 19)],
)
def test_memory_that_an_allocator_really_refuses_is_out_of_memory(
    theirs: ModuleType, name: str, part: str, line: int
) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        getattr(theirs, name)()
    kind, text = describe(caught.value)
    assert kind == "OOM"
    assert part in text
    assert text.endswith(f" (theirs.py:{line} in {name}, on {socket.gethostname()})")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nmore"), "OOM"),
        (Diverged("the loss is not finite"), "NAN"),
        (NoMetric("nothing counts"), "NO_METRIC"),
        (DataError("x.png: broken"), "DATA"),
        (StoreError("full"), "STORE"),
        (ConfigError("wrong"), "CONFIG"),
        (RunFailed("no"), "RUN"),
    ],
)
def test_our_own_errors_have_their_kind_and_one_line(error: Exception, kind: str) -> None:
    with pytest.raises(type(error)) as caught:
        raise error
    found, text = describe(caught.value)
    assert found == kind
    assert text.startswith(str(error).splitlines()[0])
    assert "\n" not in text
