"""Settings -> YAML -> the same settings, whatever a setting holds."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from attnfd_ray.config.loader import dump_yaml, load_experiment
from attnfd_ray.config.schema import ExperimentSettings, MethodSettings

SPACES = Path(__file__).parents[2] / "search_spaces"
TRICKY = [
    "", " ", "null", "~", "true", "no", "on", "3", "0x10", "1_000", "1e3", "1e-3", ".5", ".inf",
    ".nan", "1:30", "2026-03-01", "2026-13-45", "=", "<<", "*a", "&a", "!a", "%a", "@a", "`a",
    "- a", "a: b", "a #b", "#b", "{a", "[a", "'", '"', "\\", "\n", "a\nb\n", "\t", "\r\n",
    "\x00\x1b", "\x85", "\u2028", "\ufeff", "\u00fc", "\U0001f600", "${A}", "$${A}", "$$${A}",
    "${A:-b}", "${", "$$", "a" * 300, "a b " * 100, " a", "a ",
]  # fmt: skip
texts = st.sampled_from(TRICKY) | st.text(max_size=20)
numbers = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


class Anything(MethodSettings):
    """A user's own method that accepts any values."""

    loss_weight: Any = 1.0
    values: dict[str, Any] = {}


@pytest.fixture(scope="module", autouse=True)
def _module():
    module = types.ModuleType("takes_anything")
    module.Method = type("Method", (), {"Settings": Anything, "needs_teacher": False})
    sys.modules["takes_anything"] = module
    yield
    del sys.modules["takes_anything"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("yaml") / "exp.yaml"


def once(values):
    """Return the values without repeated ones, which a choice refuses."""
    found: list[Any] = []
    for value in values:
        if not any(value == other and type(value) is type(other) for other in found):
            found.append(value)
    return found


def above_zero(highest=1e30):
    return st.floats(min_value=1e-30, max_value=highest)


@st.composite
def experiments(draw):
    low, high = sorted([draw(above_zero()), draw(above_zero())])
    return ExperimentSettings.model_validate(
        {
            "experiment": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)),
            "data": {
                "name": "camvid",
                "root": draw(
                    st.sampled_from(
                        ["/data", "/d d", "/\u00fc", "/${HOME}", "/#1: x", "/a\nb", "s3://b"]
                    )
                ),
                "crop": draw(st.tuples(st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1))),
                "train_split": draw(texts),
                "scale": (low, high),
                "scale_base": draw(st.none() | st.integers(1, 9999)),
                "flip": draw(st.floats(0, 1)),
            },
            "student": {
                "output_stride": draw(st.sampled_from([8, 16])),
                "width": draw(above_zero(4.0)),
            },
            "method": {
                "name": "takes_anything:Method",
                "loss_weight": draw(anything),
                "values": draw(st.dictionaries(texts, anything, max_size=4)),
            },
            "optim": {"lr": draw(above_zero()), "nesterov": draw(st.booleans())},
            "scaling": {"gpus_per_worker": draw(st.sampled_from(["auto", 0, 1]))},
            "search": {
                "optim.lr": {"float": [low, high], "log": draw(st.booleans())},
                "train.seed": {
                    "int": [0, draw(st.integers(0, 2**31 - 1))],
                    "step": draw(st.integers(1, 2**31)),
                },
                "method.loss_weight": {
                    "choice": once(draw(st.lists(anything, min_size=1, max_size=4)))
                },
            },
            "tune": {"concurrent": draw(st.just("auto") | st.integers(1, 99))},
        }
    )


@pytest.mark.slow
@hypothesis_settings(max_examples=60, deadline=None)
@given(settings=experiments())
def test_settings_written_as_yaml_are_read_back_the_same(path, settings):
    path.write_text(dump_yaml(settings), encoding="utf-8")
    again = load_experiment(path, environ={})
    moved = {"store"}  # `./results` was made absolute
    assert again.model_dump(exclude=moved) == settings.model_dump(exclude=moved)
    assert again.model_dump_json(exclude=moved) == settings.model_dump_json(exclude=moved), (
        "1 is not true, nor 1.0"
    )
    assert dump_yaml(again) == dump_yaml(load_experiment(path, environ={}))


@pytest.mark.parametrize("text", TRICKY)
def test_tricky_text_stays_text(path, text):
    tree = {
        "experiment": "e",
        "data": {"name": "camvid", "root": "/d", "crop": [9, 9], "val_split": text},
        "student": {},
        "method": {"name": "takes_anything:Method", "values": {text: [text, {text: text}]}},
        "store": "/r",
    }
    settings = ExperimentSettings.model_validate(tree)
    path.write_text(dump_yaml(settings), encoding="utf-8")
    assert load_experiment(path, environ={}) == settings


@pytest.mark.parametrize("name", sorted(path.name for path in SPACES.glob("*.yaml")))
def test_the_experiments_that_come_with_the_project_survive_the_trip(path, name, monkeypatch):
    settings = load_experiment(SPACES / name, environ=Everything())
    path.write_text(dump_yaml(settings), encoding="utf-8")
    assert load_experiment(path, environ={}) == settings


def test_experiments_come_with_the_project():
    assert {path.name for path in SPACES.glob("*.yaml")} >= {"demo.yaml", "camvid.yaml", "voc.yaml"}


def test_the_yaml_is_for_people_too(path):
    settings = load_experiment(SPACES / "demo.yaml", environ={})
    text = dump_yaml(settings)
    assert list(yaml.safe_load(text)) == list(ExperimentSettings.model_fields)
    assert "crop: [64, 64]" in text
    assert "method:\n    choice:\n" in text
    assert max(map(len, text.splitlines())) <= 130


class Everything(dict):
    """An environment in which every variable is set."""

    def get(self, name, default=None):
        return f"/set/{name}"
